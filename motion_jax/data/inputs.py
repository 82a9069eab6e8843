"""What a config asks for: sources of records, and samplers that make arrays of them."""

import dataclasses
import logging
import math
from collections.abc import Callable

from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.data import flow_clips
from motion_jax.data.clips import Clip, Sampler, Segments, SourceFrame, Views
from motion_jax.data.flow_clips import FlowClip
from motion_jax.data.flow_records import open_flow
from motion_jax.data.key_frames import (
  KeyFrames,
  annotated_people,
  detected_people,
  with_detected,
)
from motion_jax.data.motion import Distill
from motion_jax.data.sources import Source, open_source
from motion_jax.data.subsets import low_shot

logger = logging.getLogger("motion_jax")


@dataclasses.dataclass(frozen=True)
class Sources:
  """The two parts of a data set: what is trained on, and what is held out."""

  train: Source
  heldout: Source


def configured_sources(config: ConfigDict) -> Sources:
  """Opens both parts of a config's `data` section; see `configured_source`."""
  return Sources(*(configured_source(config, part) for part in ("train", "heldout")))


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


def training_sampler(config: ConfigDict, source: Source | None = None) -> Sampler:
  """What training takes from a record, by `data.sampler` of a whole config.

  'frame' is one random frame, the source of MoSI's clips; 'clip' is `method.frames`
  frames at `data.interval`, from a random time, with prepared flow if `data.flow` names
  it (MAS); 'segments' is a frame of each of `method.frames` parts of the video;
  'distill' is two clips and two of motion, MoDist's; 'key_frames' is the clip around a
  key frame of AVA, with boxes of people.

  Args:
    config: a whole config.
    source: its training records, if they are open already.

  Raises:
    UserError: if motion that is to be read is not prepared; the message says how.
  """
  return _sampler(config, "train", source)


def _sampler(config: ConfigDict, split: str, source: Source | None) -> Sampler:
  data = config.data

  def records():
    return configured_source(data, split) if source is None else source

  word = choose(
    "data.sampler", data.sampler, ("frame", "clip", "segments", "distill", "key_frames")
  )
  if word == "frame":
    return SourceFrame(data.short_side, canvas=tuple(data.canvas))
  if word == "distill":
    return _distill(config, records)
  if word == "segments":
    return _segments(config, middle=split == "heldout", **_sizes(config))
  if word == "key_frames":
    part = {"train": "train", "heldout": "val"}[split]
    return _key_frames(config, records(), "boxes", part)
  if data.get("flow"):
    return _flow_clip(config, records(), middle=split == "heldout")
  return Clip(**_clip_options(config))


def _flow_clip(config: ConfigDict, source: Source, *, middle: bool) -> FlowClip:
  """Clips of MAS with prepared flow."""
  data = config.data
  flow = open_flow(
    source,
    method=data.flow,
    store="flow",
    interval=flow_clips.INTERVAL,
    data_dir=data.data_dir,
  )
  return FlowClip(flow, middle=middle, **_clip_options(config))


def _distill(config: ConfigDict, records: Callable[[], Source]) -> Distill:
  """Clips of MoDist; without motion if no loss needs it."""
  data, method = config.data, config.method
  flow, wanted = None, bool(method.loss_motion or method.loss_cross)
  if wanted and data.flow:
    flow = open_flow(
      records(),
      method=data.flow,
      store=method.motion,
      interval=data.flow_interval,
      short_side=data.flow_short_side,
      data_dir=data.data_dir,
    )
  return Distill(
    motion_frames=method.motion_frames if wanted else 0,
    motion_interval=data.motion_interval,
    flow=flow,
    flow_interval=data.flow_interval,
    threshold=data.motion_threshold,
    edge_scale=data.edge_scale,
    synchronised=data.synchronised,
    **_clip_options(config),
  )


def heldout_sampler(config: ConfigDict, source: Source | None = None) -> Sampler:
  """As `training_sampler`; of clips, the one in the middle of the video."""
  if config.data.sampler == "clip" and not config.data.get("flow"):
    return Views(1, **_clip_options(config))
  return _sampler(config, "heldout", source)


def test_views(config: ConfigDict) -> Sampler:
  """The clips of a classifier's test: `eval.clips` evenly spaced ones, or all for 0.

  Of `data.sampler` 'segments' it is one clip, of the middle frames of the segments.

  Raises:
    UserError: if more than one clip of segments is asked for.
  """
  if config.data.sampler == "segments":
    return _segments(config, middle=True, **_sizes(config))
  return Views(config.eval.clips, **_clip_options(config))


def detection_sampler(config: ConfigDict, source: Source) -> KeyFrames:
  """The key frames of AVA's validation part, with what a person detector has found.

  Without such boxes, people are where the annotations have them, which scores higher.
  """
  return _key_frames(config, source, "persons", "val")


def feature_views(config: ConfigDict) -> Sampler:
  """The clips that features are made of: as `test_views`, but middle squares.

  They are resized so that a crop of `eval.crop_ratio` has `method.size` pixels. All
  clips of a video (`eval.clips` = 0) overlap by `eval.overlap`, if that is given.
  """
  side = math.ceil(config.method.size / config.eval.crop_ratio)
  sizes = {"short_side": side, "canvas": (side, side)}
  if config.data.sampler == "segments":
    return _segments(config, middle=True, **sizes)
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


def _key_frames(config: ConfigDict, source: Source, kind: str, part: str) -> KeyFrames:
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
    rows, least = notes["persons"].get(part, []), config.eval.person_score
    if not rows:
      logger.warning(
        "no ava_train_predicted_boxes.csv when AVA was prepared: trained on annotated "
        "boxes alone (data.detected_iou=0 says so)"
      )
    detected = detected_people(rows, count, least)
    people = with_detected(people, detected, config.data.detected_iou)
  most = config.data.max_people
  return KeyFrames(people, most, count, **_clip_options(config))


def _segments(config: ConfigDict, *, middle: bool, **sizes) -> Segments:
  if config.eval.clips != 1:
    raise UserError(
      f"data.sampler is 'segments', which is one clip of a video, but eval.clips is "
      f"{config.eval.clips}; set it to 1"
    )
  return Segments(config.method.frames, middle=middle, **sizes)


def _sizes(config: ConfigDict) -> dict:
  return dict(short_side=config.data.short_side, canvas=tuple(config.data.canvas))
