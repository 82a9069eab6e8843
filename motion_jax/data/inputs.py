"""What a config asks for: sources of records, and the views of tests and features."""

import dataclasses
import logging
import math

from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.clips import Sampler, Segments, Views
from motion_jax.data.key_frames import KeyFrames
from motion_jax.data.labels import check_apart
from motion_jax.data.people import annotated_people, detected_people, with_detected
from motion_jax.data.sources import Source, open_source
from motion_jax.data.subsets import low_shot

logger = logging.getLogger("motion_jax")


@dataclasses.dataclass(frozen=True)
class Sources:
  """The two parts of a data set: what is trained on, and what is held out."""

  train: Source
  heldout: Source


def configured_sources(config: ConfigDict) -> Sources:
  """Opens both parts of a config's `data` section; see `configured_source`.

  Raises:
    UserError: also if a file is in both lists.
  """
  both = Sources(*(configured_source(config, part) for part in ("train", "heldout")))
  if config.train_list:
    check_apart(both.train, both.heldout)
  return both


def configured_source(config: ConfigDict, split: str) -> Source:
  """Opens the 'train' or 'heldout' records of a config's `data` section.

  Args:
    config: `name` (a data set, or 'folder' with `path`), `data_dir`,
      `heldout_fraction`, and, of a folder, `heldout_by`, `frame_folders` and the list
      files `train_list` and `heldout_list` ('' for none). Of 'train' only:
      `per_class`, `fraction` and `subset_seed`, if given; see `subsets.low_shot`.
    split: 'train' or 'heldout'.

  Raises:
    UserError: if there is no such data set or folder; the message says how to get it.
  """
  is_folder = config.name == "folder"
  if is_folder and not config.path:
    raise UserError("data.name is 'folder'; say which by --config.data.path=FOLDER")
  if bool(config.train_list) != bool(config.heldout_list):
    raise UserError(
      "give both data.train_list and data.heldout_list, or neither: held-out files "
      "must not be trained on"
    )
  lists = {"train": config.train_list, "heldout": config.heldout_list}
  source = open_source(
    config.path if is_folder else config.name,
    split=split,
    data_dir=config.data_dir or None,
    heldout_fraction=config.heldout_fraction,
    heldout_by=config.heldout_by,
    list_file=lists[split] or None,
    frame_folders=config.frame_folders,
  )
  if split == "train" and "per_class" in config:
    source = low_shot(
      source,
      per_class=config.per_class,
      fraction=config.fraction,
      seed=config.subset_seed,
    )
  return source


def test_views(config: ConfigDict) -> Sampler:
  """The clips of a classifier's test: `eval.clips` evenly spaced ones, or all for 0.

  With `method.segments` it is one clip, of the middle frames of the segments.

  Raises:
    UserError: if more than one clip of segments is asked for.
  """
  if config.method.get("segments"):
    return segments(config, middle=True)
  return Views(config.eval.clips, **_clip_options(config))


def detection_sampler(config: ConfigDict, source: Source) -> KeyFrames:
  """The key frames of AVA's validation part, with what a person detector has found.

  Without such boxes, people are where the annotations have them, which scores higher.
  """
  return key_frames(config, source, "persons", "val")


def feature_views(config: ConfigDict) -> Sampler:
  """The clips that features are made of: as `test_views`, but middle squares.

  They are resized so that a crop of `eval.crop_ratio` has `method.size` pixels. All
  clips of a video (`eval.clips` = 0) overlap by `eval.overlap`, if that is given.
  """
  side = math.ceil(config.method.size / config.eval.crop_ratio)
  sizes = {"short_side": side, "canvas": (side, side)}
  if config.method.get("segments"):
    return segments(config, middle=True, **sizes)
  options = {**_clip_options(config), **sizes}
  overlap = config.eval.get("overlap", 0.0)
  return Views(config.eval.clips, overlap=overlap, **options)


def _clip_options(config: ConfigDict) -> dict:
  data = config.data
  return dict(
    frames=config.method.frames,
    interval=data.interval,
    fps=data.fps,
    **_sizes(config),
  )


def key_frames(config: ConfigDict, source: Source, kind: str, part: str) -> KeyFrames:
  """The key frames of AVA that a config describes.

  Args:
    config: a whole config.
    source: the prepared AVA.
    kind: 'boxes' for annotated people, 'persons' for those of a detector.
    part: 'train' or 'val'.

  Raises:
    UserError: if the source has no boxes.
  """
  notes, count = getattr(source, "notes", {}), config.method.actions
  if "boxes" not in notes:
    raise UserError(
      f"{source.name} has no boxes of people; use data.name=ava, prepared by "
      "python -m motion_jax.prepare ava"
    )
  if kind == "persons" and notes["persons"].get(part):
    people = detected_people(notes["persons"][part], count, config.eval.person_score)
  else:
    if kind == "persons":
      logger.warning(
        "no ava_%s_predicted_boxes.csv when AVA was prepared: people are taken from "
        "the annotations, and the score is not comparable",
        part,
      )
    people = annotated_people(notes["boxes"][part], count)
  if part == "train" and config.data.detected_iou:
    rows, least = notes["persons"].get(part), config.eval.person_score
    if not rows:
      logger.warning(
        "no ava_train_predicted_boxes.csv when AVA was prepared: trained on annotated "
        "boxes alone (data.detected_iou=0 says so)"
      )
    else:
      detected = detected_people(rows, count, least)
      people = with_detected(people, detected, config.data.detected_iou)
  most = config.data.max_people
  return KeyFrames(people, most, count, **_clip_options(config))


def segments(config: ConfigDict, *, middle: bool, **sizes) -> Segments:
  """A frame of each of `method.frames` parts of a video; raises UserError for views."""
  if config.eval.clips != 1:
    raise UserError(
      f"method.segments=True takes one clip of a video, but eval.clips is "
      f"{config.eval.clips}; set it to 1"
    )
  return Segments(config.method.frames, middle=middle, **_sizes(config) | sizes)


def _sizes(config: ConfigDict) -> dict:
  return dict(short_side=config.data.short_side, canvas=tuple(config.data.canvas))
