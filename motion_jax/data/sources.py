"""Where records come from: prepared TFDS data sets, folders, lists of files.

A source is a sequence of records with known identifiers. Nothing is decoded or probed
when it is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Literal

Kind = Literal["video", "image", "frames"]


class DecodeError(Exception):
  """The media of a record cannot be opened, or a frame that they promise, decoded."""


class StorageFault(Exception):
  """Storage fails now, which says nothing of the record; see `storage`.

  Attributes:
    path: of the file that could not be read.
    reason: in the words of the operating system.
  """

  def __init__(self, path: str | os.PathLike, reason: str):
    super().__init__(path, reason)
    self.path, self.reason = os.fspath(path), reason

  def __str__(self) -> str:
    return f"{self.path} cannot be read: {self.reason}"


@contextlib.contextmanager
def decode_errors(what: str = "") -> Iterator[None]:
  """Turns every exception into a `DecodeError`, with the exception as its cause.

  A damaged file can make the libraries return anything, and raise anything later on.

  Args:
    what: is damaged, for the message.
  """
  try:
    yield
  except (DecodeError, StorageFault):
    raise
  except Exception as error:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    raise DecodeError(f"{what}: {reason}" if what else reason) from error


@dataclasses.dataclass(frozen=True)
class Record:
  """One video or image, still encoded.

  Attributes:
    id: identifier, unique in its data set.
    kind: "video", "image", or "frames" (a video as a sequence of images).
    media: encoded bytes or the path of a file; for "frames" a tuple of those.
    label: class index, -1 if unknown.
    num_frames, fps, height, width: None if not known before the file is opened.

  >>> Record("dive/01", "video", pathlib.Path("dive/01.mp4"), label=0).fps is None
  True
  """

  id: str
  kind: Kind
  media: bytes | pathlib.Path | tuple[bytes | pathlib.Path, ...]
  label: int = -1
  num_frames: int | None = None
  fps: float | None = None
  height: int | None = None
  width: int | None = None


@dataclasses.dataclass(frozen=True)
class Source:
  """A sequence of records.

  Attributes:
    name: data set name or path.
    split: the part of it that this is.
    classes: names of the labels, or None if there are no labels.
    ids: identifier of every record.
    labels: class index of every record, -1 if unknown.

  >>> source = open_source("~/videos", split="all")
  >>> [record.label for record in source] == source.labels
  True
  """

  name: str
  split: str
  classes: tuple[str, ...] | None
  ids: Sequence[str] = dataclasses.field(repr=False)
  labels: Sequence[int] = dataclasses.field(repr=False)

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> Record:
    """Reads a record; its media stay encoded."""
    raise NotImplementedError

  def id_of(self, index: int) -> str:
    return self.ids[index]


def open_source(
  name_or_path: str | os.PathLike,
  *,
  split: str = "train",
  data_dir: str | os.PathLike | None = None,
  heldout_fraction: float = 0.1,
  heldout_by: str = "class",
  list_file: str | os.PathLike | None = None,
  frame_folders: bool = True,
) -> Source:
  """Opens a data set by name, or a folder by path.

  Args:
    name_or_path: a data set ("synthetic_actions", "hmdb51", ...), optionally with a
      variant ("ucf101:split2", "hmdb51:split3,frames", "imagenet_subset:20",
      "video_folder:mine"), or the path of a folder with any mix of videos, images and
      folders of frames, with or without a sub-folder per class.
    split: data set: "train", "test", "val" where it has one, "heldout" (the test or
      val split) or "all". Folder: "train", "heldout" (also as "test" or "val"), "all".
    data_dir: root of prepared data sets; None for $TFDS_DATA_DIR, or
      ~/tensorflow_datasets.
    heldout_fraction: share of a folder's files in "heldout", chosen by a hash of the
      file's path in the folder.
    heldout_by: "class": that share of each class, where sub-folders are classes; at
      least one file of two. "file": each file by its hash alone, so that none changes
      sides when the folder grows; folders without classes in any case.
    list_file: text file with a line `path [label]` for each file of the folder that
      is to be used, relative to the folder. The list then is the split: `split` and
      `heldout_fraction` have no effect.
    frame_folders: a sub-folder of images that are numbered without a gap is one video;
      False: each of these images is a record of its own. Of a folder without a list.

  Returns:
    The source.

  Raises:
    UserError: unknown name, data set not prepared, folder missing or without media,
      unknown split; the message has the fix.

  A folder with `dive/a.png` to `dive/d.png` and as many of `run`:

  >>> source = open_source("~/videos", split="all")
  >>> source.classes, len(source)
  (('dive', 'run'), 8)
  >>> source[0].id, source[0].kind, source[0].label
  ('dive/a.png', 'image', 0)
  >>> open_source("~/videos", split="heldout", heldout_fraction=0.25).ids
  ['dive/c.png', 'run/a.png']
  """
  # Here, so that a worker process that only unpickles records does not load TFDS.
  from motion_jax.data import datasets, folders

  name = os.fspath(name_or_path)
  if list_file is None and datasets.is_name(name):
    return datasets.open_dataset(name, split, data_dir)
  return folders.open_folder(
    name,
    split,
    heldout_fraction=heldout_fraction,
    heldout_by=heldout_by,
    list_file=list_file,
    frame_folders=frame_folders,
  )
