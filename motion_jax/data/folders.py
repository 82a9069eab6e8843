"""Folders of videos, images and frame folders, used as they are."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import posixpath
import re
from collections.abc import Sequence

from motion_jax.config import UserError, choose, local_path
from motion_jax.data import sources, subsets
from motion_jax.data.files import (
  IMAGE_SUFFIXES,
  VIDEO_SUFFIXES,
  counts_text,
  find,
  readable,
  suffix,
)

logger = logging.getLogger("motion_jax")

_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}
_MIN_FRAMES = 2  # numbered images in a folder that make it a video
_NUMBER = re.compile(r"(\d+)$")


@dataclasses.dataclass(frozen=True)
class FolderSource(sources.Source):
  """Records of a folder; media are read when they are decoded.

  Attributes:
    paths: of the files and frame folders, in the folder; as text that can be stored,
      these are the `ids`.
    kinds: see `sources.Kind`.
  """

  paths: Sequence[str] = dataclasses.field(repr=False)
  kinds: Sequence[str] = dataclasses.field(repr=False)

  def __getitem__(self, index: int) -> sources.Record:
    kind, path = self.kinds[index], pathlib.Path(self.name, self.paths[index])
    media = frame_paths(path) if kind == "frames" else path
    return sources.Record(self.ids[index], kind, media, self.labels[index])


def open_folder(
  path: str,
  split: str,
  *,
  heldout_fraction: float = 0.1,
  heldout_by: str = "class",
  list_file: str | os.PathLike | None = None,
  frame_folders: bool = True,
) -> FolderSource:
  """Opens a folder; see `sources.open_source`."""
  root = os.path.abspath(local_path(path))
  if not os.path.isdir(root):
    raise UserError(
      f"no data set and no folder is called {path!r} (looked at {root}). Give the path "
      "of a folder of videos or images, or the name of a data set such as "
      "synthetic_actions, ucf101 or hmdb51."
    )
  if list_file is not None:
    return _from_list(root, split, local_path(list_file))
  names = {"train": "train", "all": "all"}
  names |= dict.fromkeys(("heldout", "test", "val"), "heldout")
  if split not in names:
    raise UserError(f"a folder has no split {split!r}; use train, heldout or all")
  choose("heldout_by", heldout_by, ("class", "file"))
  if not 0 <= heldout_fraction < 1:
    raise UserError(f"heldout_fraction is {heldout_fraction}; it must be in [0, 1)")
  found, others = _scan(root, frame_folders)
  if not found:
    raise UserError(
      f"no videos or images in {root} (files: {counts_text(others)}). Looked in all "
      "sub-folders for files that end in "
      f"{' '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))}."
    )
  if others and names[split] != "heldout":  # opened beside the training part
    logger.info("%s: passed over %s", root, counts_text(others))
  paths = [path for path, _ in found]
  classes, labels = _labels(paths)
  groups = labels if heldout_by == "class" and classes else None
  heldout = subsets.held_out(paths, groups, heldout_fraction)
  wanted = {"train": (False,), "heldout": (True,), "all": (False, True)}[names[split]]
  chosen = [i for i in range(len(paths)) if (i in heldout) in wanted]
  if not chosen:
    raise UserError(
      f"the {split!r} split of {root} is empty: it has {len(found)} file(s) and "
      f"heldout_fraction is {heldout_fraction}; add files, raise "
      "--config.data.heldout_fraction, or list both parts by --config.data.train_list "
      "and --config.data.heldout_list"
    )
  paths, kinds = zip(*(found[i] for i in chosen), strict=True)
  return _source(root, split, classes, paths, kinds, [labels[i] for i in chosen])


def frame_paths(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Lists the images of a frame folder in the order of their numbers."""
  names = [
    entry.name
    for entry in os.scandir(folder)
    if suffix(entry.name) in IMAGE_SUFFIXES and not entry.name.startswith(".")
  ]
  names.sort(key=lambda name: (_frame_number(name) or 0, name))
  return tuple(folder / name for name in names)


def _scan(
  root: str, frame_folders: bool
) -> tuple[list[tuple[str, str]], dict[str, int]]:
  """Finds (path in the folder, kind) of all media, sorted; and counts other files."""
  paths, others = find(root, VIDEO_SUFFIXES | IMAGE_SUFFIXES)
  found = [(path, "video") for path in paths if suffix(path) in VIDEO_SUFFIXES]
  images: dict[str, list[str]] = {}
  for path in paths:
    if suffix(path) in IMAGE_SUFFIXES:
      images.setdefault(os.path.dirname(path), []).append(path)
  for inside, own in images.items():
    if frame_folders and inside and _are_frames(own):
      found.append((inside, "frames"))
    else:
      found += [(path, "image") for path in own]
  return sorted(found), others


def _are_frames(paths: list[str]) -> bool:
  """Tells whether images are the frames of one video: numbered without a gap."""
  if len(paths) < _MIN_FRAMES:
    return False
  numbers = [_frame_number(path) for path in paths]
  if None in numbers:
    return False
  prefixes = {_NUMBER.sub("", os.path.splitext(path)[0]) for path in paths}
  count = len(paths)
  return (
    len(prefixes) == 1
    and len(set(numbers)) == count
    and max(numbers) - min(numbers) == count - 1
  )


def _frame_number(name: str) -> int | None:
  match = _NUMBER.search(os.path.splitext(name)[0])
  return int(match[1]) if match else None


def _labels(paths: list[str]) -> tuple[tuple[str, ...] | None, list[int]]:
  """Takes the first sub-folder as class if every medium lies in one of several."""
  tops = [path.partition("/") for path in paths]
  classes = tuple(sorted({readable(top) for top, _, _ in tops}))
  all_inside = all(rest for _, _, rest in tops)
  if not all_inside or len(classes) < 2 or _SPLIT_NAMES.issuperset(classes):
    return None, [-1] * len(paths)
  index = {name: number for number, name in enumerate(classes)}
  return classes, [index[readable(top)] for top, _, _ in tops]


def _from_list(root: str, split: str, list_file: pathlib.Path) -> FolderSource:
  try:
    lines = list_file.read_text(encoding="utf-8-sig", errors="surrogateescape").split(
      "\n"
    )
  except OSError as error:
    raise UserError(f"cannot read the list of files {list_file}: {error}") from error
  paths, labels = [], []
  for line in filter(None, map(str.strip, lines)):
    path, _, last = line.rpartition(" ")
    labelled = bool(path) and re.fullmatch(r"-?\d+", last)
    paths.append(posixpath.normpath(path.strip() if labelled else line))
    labels.append(int(last) if labelled else -1)
  if not any(os.path.exists(os.path.join(root, path)) for path in paths[:100]):
    raise UserError(
      f"none of the first {len(paths[:100])} files of {list_file} is in {root}; the "
      "list needs a line `path [label]` for each file, its path relative to that folder"
    )
  kinds = dict.fromkeys(VIDEO_SUFFIXES, "video") | dict.fromkeys(
    IMAGE_SUFFIXES, "image"
  )
  kinds = [kinds.get(suffix(path), "frames") for path in paths]
  return _source(root, split, _class_names(paths, labels), paths, kinds, labels)


def _class_names(ids: list[str], labels: list[int]) -> tuple[str, ...] | None:
  """Names classes after their sub-folders, or after their numbers."""
  if max(labels) < 0:
    return None
  folders: dict[int, set[str]] = {}
  for name, label in zip(ids, labels, strict=True):
    folders.setdefault(label, set()).add(readable(name.partition("/")[0]))
  names = [str(label) for label in range(max(labels) + 1)]
  tops = [top for label, tops in folders.items() if label >= 0 for top in tops]
  if len(tops) == len(set(tops)) == len(folders.keys() - {-1}):
    for label, tops in folders.items():
      if label >= 0:
        names[label] = next(iter(tops))
  return tuple(names)


def _source(root, split, classes, paths, kinds, labels) -> FolderSource:
  """Makes the source, and tells what is in it."""
  counts = {
    "video": "videos",
    "image": "images",
    "frames": "frame folders (one video each)",
  }
  parts = [
    f"{kinds.count(kind)} {words}" for kind, words in counts.items() if kind in kinds
  ]
  parts.append(f"{len(classes)} classes" if classes else "no classes")
  logger.info("%s, split %s: %s", root, split, ", ".join(parts))
  ids = [*map(readable, paths)]
  return FolderSource(root, split, classes, ids, labels, paths, kinds)
