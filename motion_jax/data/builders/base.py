"""What all our TFDS builders share: record layouts, identifiers, atomic preparation.

Media are stored as encoded bytes, so neither writing nor reading needs TensorFlow.
A prepared data set is read back with `tfds.builder_from_directory`.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

try:
  import fcntl
except ImportError:  # on Windows
  fcntl = None

LAYOUTS = ("video", "frames", "image")

Examples = Iterable[dict]  # one dict of features per record, "id" included


class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes records of encoded media as a TFDS data set of ArrayRecord files.

  Subclasses give the data set its name (the class name in snake case), version and
  description. They are not registered with TFDS: some share their name with a builder
  of TFDS that needs TensorFlow.
  """

  VERSION = tfds.core.Version("1.1.0")
  RELEASE_NOTES = {
    "1.0.0": "First release.",
    "1.1.0": "Labels are kept beside the identifiers.",
  }
  DESCRIPTION = ""

  def __init__(
    self,
    *,
    data_dir: str | os.PathLike,
    config: str,
    layout: str,
    classes: tuple[str, ...] | None,
    splits: Mapping[str, Callable[[], Examples]],
    damaged: Mapping[str, str] | None = None,
    origin: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    notes: Mapping[str, Any] | None = None,
  ):
    """Describes a data set that is about to be written.

    Args:
      data_dir: root folder of TFDS data sets.
      config: name of the variant, such as "video_256".
      layout: "video" (mp4), "frames" (list of JPEG) or "image".
      classes: names of the labels, or None if there are none.
      splits: for each split a function that starts its examples: dicts of the layout's
        features, in the order in which they will be stored.
      damaged: what is wrong with records that were left out or cut short, by id.
      origin: what the data set was made from, for telling it from another of its name.
      missing: identifiers of records that the official lists have and this lacks.
      notes: what a protocol needs besides the records, such as pairs; JSON values.
    """
    self._layout = layout
    self._classes = classes
    self._splits = splits
    self._notes = {
      "damaged": dict(damaged or {}),
      "origin": dict(origin or {}),
      "missing": list(missing),
      "notes": dict(notes or {}),
    }
    self._ids: dict[str, list[str]] = {name: [] for name in splits}
    self._labels: dict[str, list[int]] = {name: [] for name in splits}
    with _quiet():
      super().__init__(
        data_dir=os.fspath(data_dir),
        config=tfds.core.BuilderConfig(name=config),
        file_format="array_record",
      )

  def _info(self) -> tfds.core.DatasetInfo:
    # Identifiers and labels are kept beside the records: wanted without the media.
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.DESCRIPTION,
      features=_features(self._layout, self._classes),
      metadata=tfds.core.MetadataDict(
        ids=self._ids, labels=self._labels, **self._notes
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {name: self._generate_examples(name) for name in self._splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    for number, example in enumerate(self._splits[split]()):
      self._ids[split].append(example["id"])
      self._labels[split].append(int(example["label"]))
      yield number, example


def _features(layout: str, classes: tuple[str, ...] | None):
  encoded = tfds.features.Tensor(shape=(), dtype=np.object_)
  media = {
    "video": {"video": encoded},
    "frames": {"frames": tfds.features.Sequence(encoded)},
    "image": {"image": encoded},
  }[layout]
  label = tfds.features.Scalar(np.int64)
  if classes is not None:
    label = tfds.features.ClassLabel(names=list(classes))
  return tfds.features.FeaturesDict(
    {
      **media,
      "id": tfds.features.Text(),
      "label": label,
      "num_frames": tfds.features.Scalar(np.int64),
      "fps": tfds.features.Scalar(np.float64),
      "height": tfds.features.Scalar(np.int64),
      "width": tfds.features.Scalar(np.int64),
    }
  )


def default_data_dir() -> pathlib.Path:
  """Returns $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
  path = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  return pathlib.Path(path).expanduser()


def write(builder: RecordBuilder) -> pathlib.Path:
  """Generates a data set; it appears under its final name only when it is complete.

  Call this while `writing` is held.

  Returns:
    The folder of the data set.
  """
  for stale in pathlib.Path(builder.data_dir).parent.glob("incomplete.*"):
    shutil.rmtree(stale, ignore_errors=True)  # of a process that was killed
  with _quiet(), tempfile.TemporaryDirectory() as downloads:
    builder.download_and_prepare(download_dir=downloads, file_format="array_record")
  return pathlib.Path(builder.data_dir)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Holds the right to write below `path`; a second process waits for its turn.

  Where the system has no such locks (Windows), a warning says that nothing waits.

  Raises:
    OSError: if the folder cannot be created or written.
  """
  path.mkdir(parents=True, exist_ok=True)
  with open(path / ".lock", "w") as lock:
    if fcntl is None:
      logging.warning(
        "no file locks on this system: let no other process write to %s now", path
      )
    else:
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps TFDS from reporting on downloads, configurations and its own progress."""
  threshold = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()
    logging.set_verbosity(threshold)
