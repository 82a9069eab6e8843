"""What all our data sets share: record layouts, names of shards, what TFDS reads.

Media are stored as encoded bytes in ArrayRecord shards that we write ourselves: the
writer of TFDS sorts a split above 1,000 MiB with TensorFlow, and keeps a second copy.
A prepared data set is read back with `tfds.builder_from_directory`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info, naming
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from motion_jax.config import UserError
from motion_jax.data import box_rows

VERSION = "1.1.0"  # of what a record holds; a prepared data set lies in a folder of it


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set that is about to be written.

  Attributes:
    name: of the data set, in snake case.
    config: name of the variant, such as "video_256".
    layout: "video" (mp4), "frames" (list of JPEG) or "image".
    classes: names of the labels, or None if there are none.
    description: what it is, in words.
  """

  name: str
  config: str
  layout: str
  classes: tuple[str, ...] | None
  description: str

  def shard_path(
    self, folder: pathlib.Path, split: str, number: int, of: int
  ) -> pathlib.Path:
    """Path of a shard; TFDS finds it by this name."""
    return folder / f"{self.name}-{split}.array_record-{number:05d}-of-{of:05d}"

  def features(self) -> tfds.features.FeaturesDict:
    """Names and types of what a record holds."""
    encoded = tfds.features.Tensor(shape=(), dtype=np.object_)
    media = {
      "video": {"video": encoded},
      "frames": {"frames": tfds.features.Sequence(encoded)},
      "image": {"image": encoded},
    }[self.layout]
    label = tfds.features.Scalar(np.int64)
    if self.classes is not None:
      label = tfds.features.ClassLabel(names=list(self.classes))
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

  def serializer(self):
    """A function from the features of a record to the bytes that are stored.

    They are the same in every process; those of `serialize_example` are not.
    """
    features = self.features()
    serializer = ExampleSerializer(features.get_serialized_info())

    def serialize(example):
      message = serializer.get_tf_example(features.encode_example(example))
      return message.SerializeToString(deterministic=True)

    return serialize

  def describe(
    self,
    folder: pathlib.Path,
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    metadata: Mapping[str, Any],
  ) -> None:
    """Writes what TFDS needs beside the shards, then looks whether they fit to it.

    Args:
      folder: of the shards.
      splits: of each split what `shards.write` returned, shard by shard.
      metadata: JSON values, and in its notes `BoxRows`, that are kept with the data
        set. Identifiers and labels of all records come to it: they are wanted without
        the media.

    Raises:
      UserError: if a shard does not hold what was written to it.
    """
    notes = box_rows.stored(metadata.get("notes", {}), folder)
    metadata = {**metadata, "notes": notes}
    for key in ("ids", "labels"):
      metadata[key] = {
        split: [value for part in parts for value in part[key]]
        for split, parts in splits.items()
      }
    identity = dataset_info.DatasetIdentity(
      name=self.name,
      version=tfds.core.Version(VERSION),
      data_dir=os.fspath(folder),
      module_name=__name__,
      config_name=self.config,
    )
    info = tfds.core.DatasetInfo(
      builder=identity,
      description=self.description,
      features=self.features(),
      metadata=tfds.core.MetadataDict(metadata),
      disable_shuffling=True,
    )
    info.set_file_format("array_record")
    info.set_splits(
      tfds.core.SplitDict([self._split(folder, *s) for s in splits.items()])
    )
    info.write_to_directory(folder)
    _verify(folder, splits)

  def _split(self, folder, split, parts):
    template = naming.ShardedFileTemplate(
      dataset_name=self.name,
      data_dir=folder,
      split=split,
      filetype_suffix="array_record",
    )
    return tfds.core.SplitInfo(
      name=split,
      shard_lengths=[len(part["ids"]) for part in parts],
      num_bytes=sum(part["bytes"] for part in parts),
      filename_template=template,
    )


def _verify(folder, splits):
  """Reads the first and the last record of every shard."""
  builder = tfds.builder_from_directory(os.fspath(folder))
  for split, parts in splits.items():
    records = builder.as_data_source(split=split)
    first = 0
    for part in parts:
      for index in {0, len(part["ids"]) - 1} if part["ids"] else ():
        found = records[first + index]["id"].decode()
        if found != part["ids"][index]:
          raise UserError(
            f"{folder} is damaged: record {first + index} of {split} is {found}, not "
            f"{part['ids'][index]}; delete it and run the same command again"
          )
      first += len(part["ids"])
    if len(records) != first:
      raise UserError(
        f"{folder} is damaged: {split} has {len(records)} records, not {first}; delete "
        "it and run the same command again"
      )
