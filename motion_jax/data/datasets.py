"""Prepared TFDS data sets as sources."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from motion_jax.config import UserError
from motion_jax.data import box_rows, sources
from motion_jax.data.disk import data_root
from motion_jax.data.record_files import RecordFiles

logger = logging.getLogger("motion_jax")

# What `python -m motion_jax.prepare NAME` needs besides the name.
PREPARE = {
  "ucf101": "--source=FOLDER_OR_ZIP_OF_VIDEOS --splits=FOLDER_OF_OFFICIAL_LISTS",
  "hmdb51": "--source=FOLDER_OF_VIDEOS --splits=FOLDER_OF_OFFICIAL_LISTS",
  "kinetics400": "--source=FOLDER_OF_CLIPS --splits=FOLDER_OF_CSV_FILES",
  "something_something_v2": "--source=FOLDER_OF_VIDEOS --splits=FOLDER_OF_JSON_FILES",
  "ava": "--source=FOLDER_OF_MOVIES --splits=FOLDER_OF_CSV_AND_PBTXT_FILES",
  "aslan": "--source=FOLDER_OF_VIDEOS --splits=FOLDER_OF_VIEW2.MAT",
  "yupenn": "--source=FOLDER_OF_SCENES",
  "imagenet_subset": "--source=IMAGENET_TRAIN_FOLDER --per_class=10",
  "video_folder": "--source=FOLDER --name=NAME",
  "image_folder": "--source=FOLDER --name=NAME",
}
EMBEDDED = "synthetic_actions"
OFFICIAL_SPLITS = {"ucf101": 3, "hmdb51": 3}  # data sets with several official splits


class NotPreparedError(UserError):
  """The data set that is asked for must be prepared before."""


@dataclasses.dataclass(frozen=True)
class DatasetSource(sources.Source):
  """Records of a prepared data set.

  Attributes:
    full_name: with variant and version.
    records: examples, as dicts.
    notes: what a protocol needs besides the records; see the data set's builder.
  """

  full_name: str
  records: Sequence[dict] = dataclasses.field(repr=False)
  notes: Mapping[str, Any] = dataclasses.field(repr=False, default_factory=dict)

  def __getstate__(self):
    return {**vars(self), "notes": {}}  # which worker processes do not need

  def __getitem__(self, index: int) -> sources.Record:
    example = self.records[index]
    kind = next(kind for kind in ("video", "frames", "image") if kind in example)
    media = example[kind]
    return sources.Record(
      id=self.ids[index],
      kind=kind,
      media=tuple(media) if kind == "frames" else media,
      label=self.labels[index],
      num_frames=int(example["num_frames"]),
      fps=float(example["fps"]),
      height=int(example["height"]),
      width=int(example["width"]),
    )


@dataclasses.dataclass(frozen=True)
class _Examples(Sequence):
  """As the data source of TFDS, which keeps every file open and pickles all notes."""

  features: Any
  files: RecordFiles

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> dict:
    data = self.files[index]
    with sources.decode_errors("a damaged record"):
      return self.features.deserialize_example_np(data)


def is_name(name: str) -> bool:
  """Tells whether this is the name of one of our data sets, with or without variant."""
  return name.partition(":")[0] in (*PREPARE, EMBEDDED)


def open_dataset(
  name: str, split: str, data_dir: str | os.PathLike | None = None
) -> DatasetSource:
  """Opens a prepared data set; see `sources.open_source`."""
  import tensorflow_datasets as tfds

  root = data_root(data_dir)
  base_name, _, variant = name.partition(":")
  words = [word for word in variant.split(",") if word]
  official = None
  if base_name in OFFICIAL_SPLITS:
    official, words = _official_split(name, words)
  if base_name == EMBEDDED:
    path = _build_embedded(name, words, root)
  else:
    path = _find(name, base_name, words, root, data_dir is not None)
  builder = tfds.builder_from_directory(os.fspath(path))
  parts = _parts(name, split, list(builder.info.splits), official)
  ids, labels = (
    [value for part in parts for value in builder.info.metadata[name][part]]
    for name in ("ids", "labels")
  )
  label = builder.info.features["label"]
  shards = builder.info.splits["+".join(parts)].file_instructions
  files = RecordFiles([(part.filename, part.take) for part in shards])
  source = DatasetSource(
    name=name,
    split=split,
    classes=tuple(label.names) if hasattr(label, "names") else None,
    ids=ids,
    labels=labels,
    full_name=builder.info.full_name,
    records=_Examples(builder.info.features, files),
    notes=box_rows.loaded(builder.info.metadata.get("notes", {}), path),
  )
  logger.info("%s, split %s: %d records in %s", name, split, len(source), path)
  return source


def prepare_command(name: str, data_dir: str | os.PathLike | None = None) -> str:
  """Returns the command that prepares a data set, in the variant that it names."""
  base_name, _, variant = name.partition(":")
  options = PREPARE[base_name]
  if base_name == "imagenet_subset" and variant.isdecimal():
    options = options.replace("=10", f"={variant}")
  elif base_name in ("video_folder", "image_folder") and variant:
    options = options.replace("=NAME", f"={shlex.quote(variant)}")
  elif "frames" in re.split("[,_]", variant):
    options += " --layout=frames"
  if data_dir:
    options += f" --data_dir={shlex.quote(os.fspath(data_dir))}"
  return f"python -m motion_jax.prepare {base_name} {options}"


def _build_embedded(name: str, words: list[str], root: pathlib.Path) -> pathlib.Path:
  from motion_jax.data.builders import synthetic_actions

  config = words[0] if words else "default"
  if len(words) > 1 or config not in synthetic_actions.SIZES:
    raise UserError(
      f"unknown variant in {name!r}; synthetic_actions has "
      f"{', '.join(synthetic_actions.SIZES)}"
    )
  try:
    return synthetic_actions.build(root, config)
  except OSError as error:
    raise UserError(
      f"cannot write synthetic_actions below {root}: {error}. Give another folder with "
      "data_dir or in the environment variable TFDS_DATA_DIR."
    ) from error


def _official_split(name: str, words: list[str]) -> tuple[int, list[str]]:
  """Takes the number of the official split out of the variant; 1 by default."""
  known = {f"split{i + 1}": i for i in range(OFFICIAL_SPLITS[name.partition(":")[0]])}
  chosen = [known[word] for word in words if word in known]
  if len(chosen) > 1:
    raise UserError(f"{name!r} names more than one official split")
  return (chosen or [0])[0], [word for word in words if word not in known]


def _find(
  name: str, base_name: str, words: list[str], root: pathlib.Path, is_given: bool
) -> pathlib.Path:
  """Finds the folder of the prepared variant that has all the words."""
  from motion_jax.data.builders.base import VERSION

  info = f"*/{VERSION}/dataset_info.json"
  found = {
    path.parent.parent.name: path.parent
    for path in sorted((root / base_name).glob(info))
  }
  command = prepare_command(name, root if is_given else None)
  if not found:
    raise NotPreparedError(
      f"{base_name} is not prepared in {root}. Prepare it with\n{command}"
    )
  matching = [
    config
    for config in found
    if all(word == config or word in config.split("_") for word in words)
  ]
  if not matching:
    raise UserError(
      f"{name!r}: no variant of {base_name} in {root} fits; there are "
      f"{', '.join(found)}. Use one of these, or prepare another with\n{command}"
    )
  preferred = [config for config in matching if config.startswith("video")] or matching
  if len(preferred) > 1:
    raise UserError(
      f"{name!r} fits {', '.join(preferred)} in {root}; say which one, for example "
      f"{base_name}:{preferred[0]}"
    )
  return found[preferred[0]]


def _parts(
  name: str, split: str, available: list[str], official: int | None
) -> list[str]:
  """Lists the TFDS splits that make up a split; "all" is every one of them."""
  if split == "all":
    return available
  if official is not None:
    # A part is named after its role in each official split, as in train_test_unused.
    wanted = "test" if split == "heldout" else split
    parts = [part for part in available if part.split("_")[official] == wanted]
    known = ["train", "test", "heldout", "all"]
  else:
    heldout = [part for part in ("test", "val") if part in available][:1]
    parts = heldout if split == "heldout" else [split] if split in available else []
    known = [*available, *(["heldout"] if heldout else []), "all"]
  if not parts:
    fix = "; prepare it with a test part" if split == "heldout" else ""
    raise UserError(f"{name} has no split {split!r}; it has {', '.join(known)}{fix}")
  return parts
