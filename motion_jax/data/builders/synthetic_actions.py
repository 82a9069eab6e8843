"""The embedded data set: made on first use, nothing to download."""

from __future__ import annotations

import collections
import concurrent.futures
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import tqdm

from motion_jax.data import synthetic, transcode
from motion_jax.data.builders import base, shards

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
  with base.writing(root):
    if target.is_dir():  # made by another process while this one waited
      return target
    logger.info("making synthetic_actions in %s (once, under a minute)", target)
    dataset = base.Dataset(
      "synthetic_actions", config, "video", synthetic.CLASSES, synthetic.__doc__
    )
    folder = root / f".building_{config}"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    with (
      concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
      tqdm.tqdm(total=sum(sizes.values()), unit=" videos", desc="making") as bar,
    ):
      splits = {
        name: [
          shards.write(
            dataset.shard_path(folder, name, 0, 1),
            _examples(name, count, pool, bar),
            dataset.serializer(),
          )
        ]
        for name, count in sizes.items()
      }
    dataset.describe(folder, splits, {})
    target.parent.mkdir(exist_ok=True)
    os.replace(folder, target)
    return target


def _examples(split: str, count: int, pool, bar) -> Iterator[dict]:
  ahead: collections.deque = collections.deque()
  for number in range(count):
    ahead.append(pool.submit(_example, split, number))
    if len(ahead) > 4 * os.cpu_count():
      bar.update()
      yield ahead.popleft().result()
  while ahead:
    bar.update()
    yield ahead.popleft().result()


def _example(split: str, number: int) -> dict:
  label = number % len(synthetic.CLASSES)
  rng = np.random.default_rng([_SEED, split == "test", number])
  video = synthetic.render(rng, label)
  return {
    "video": transcode.encode_mp4(video, synthetic.FPS, crf=22, preset="superfast"),
    "id": f"{split}/{synthetic.CLASSES[label]}_{number:04d}",
    "label": label,
    "num_frames": len(video),
    "fps": float(synthetic.FPS),
    "height": video.shape[1],
    "width": video.shape[2],
  }
