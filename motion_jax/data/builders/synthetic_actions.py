"""The embedded data set: made on first use, nothing to download."""

from __future__ import annotations

import functools
import logging
import os
import pathlib
import shutil

import grain
import numpy as np

from motion_jax.data import synthetic
from motion_jax.data.builders import base, encoding, shards
from motion_jax.data.disk import writing
from motion_jax.progress import progress_bar

logger = logging.getLogger("motion_jax")

_SEED = 20210621
# Videos per split. `tiny` is for tests and smoke runs.
SIZES = {
  "default": {"train": 640, "test": 160},
  "tiny": {"train": 20, "test": 10},
}


def build(data_dir: str | os.PathLike, config: str = "default") -> pathlib.Path:
  """Makes the data set unless it is there already.

  Args:
    data_dir: root folder of TFDS data sets.
    config: "default" (640 + 160 videos) or "tiny" (20 + 10).

  Returns:
    The folder of the prepared data set.

  Raises:
    OSError: if the folder cannot be written.
  """
  sizes = SIZES[config]
  root = pathlib.Path(data_dir) / "synthetic_actions"
  target = root / config / base.VERSION
  if target.is_dir():
    return target
  with writing(root):
    if target.is_dir():  # made by another process while this one waited
      return target
    logger.info("making synthetic_actions in %s (once, under a minute)", target)
    dataset = base.Dataset(
      "synthetic_actions", config, "video", synthetic.CLASSES, synthetic.__doc__
    )
    folder = root / f".building_{config}"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    splits = {}
    for split, count in sizes.items():
      videos = grain.MapDataset.range(count).map(functools.partial(_example, split))
      videos = videos.to_iter_dataset()  # in threads
      examples = progress_bar(
        videos, total=count, unit=" videos", desc=f"making {split}"
      )
      path = dataset.shard_path(folder, split, 0, 1)
      splits[split] = [shards.write(path, examples, dataset.serializer())]
    dataset.describe(folder, splits, {})
    target.parent.mkdir(exist_ok=True)
    os.replace(folder, target)
    return target


def _example(split: str, number: int) -> dict:
  label = number % len(synthetic.CLASSES)
  rng = np.random.default_rng([_SEED, split == "test", number])
  video = synthetic.render(rng, label)
  return {
    "video": encoding.encode_mp4(video, synthetic.FPS, crf=22, preset="superfast"),
    "id": f"{split}/{synthetic.CLASSES[label]}_{number:04d}",
    "label": label,
    "num_frames": len(video),
    "fps": float(synthetic.FPS),
    "height": video.shape[1],
    "width": video.shape[2],
  }
