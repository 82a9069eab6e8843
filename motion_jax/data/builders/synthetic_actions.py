"""The embedded data set: made on first use, nothing to download."""

from __future__ import annotations

import collections
import concurrent.futures
import logging
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tqdm

from motion_jax.data import synthetic, transcode
from motion_jax.data.builders import base

logger = logging.getLogger("motion_jax")

_SEED = 20210621
# Videos per split. `tiny` is for tests and smoke runs.
SIZES = {
  "default": {"train": 640, "test": 160},
  "tiny": {"train": 20, "test": 10},
}


class SyntheticActions(base.RecordBuilder, skip_registration=True):
  """Videos of textured objects; the class is how they move."""

  DESCRIPTION = synthetic.__doc__


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
  target = root / config / str(SyntheticActions.VERSION)
  if target.is_dir():
    return target
  with base.writing(root):
    if target.is_dir():  # made by another process while this one waited
      return target
    logger.info("making synthetic_actions in %s (once, under a minute)", target)
    with (
      concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
      tqdm.tqdm(total=sum(sizes.values()), unit=" videos", desc="making") as bar,
    ):
      splits = {name: _starter(name, count, pool, bar) for name, count in sizes.items()}
      builder = SyntheticActions(
        data_dir=data_dir,
        config=config,
        layout="video",
        classes=synthetic.CLASSES,
        splits=splits,
      )
      return base.write(builder)


def _starter(split: str, count: int, pool, bar) -> Callable[[], Iterator[dict]]:
  def examples():
    ahead = collections.deque()
    for number in range(count):
      ahead.append(pool.submit(_example, split, number))
      if len(ahead) > 4 * os.cpu_count():
        bar.update()
        yield ahead.popleft().result()
    while ahead:
      bar.update()
      yield ahead.popleft().result()

  return examples


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
