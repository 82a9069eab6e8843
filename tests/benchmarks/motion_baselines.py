"""What a still picture and the optical flow tell of a folder's classes, by themselves.

  python tests/benchmarks/motion_baselines.py FOLDER [--groups=RULE]
    [--train_list=FILE --heldout_list=FILE] [--out=FILE.json]

R@1, k-NN (k=200) and a linear classifier as of encoders' features: of the middle frame,
grey, 16x16, and of a histogram of Farneback's flow between 12 pairs of frames of 128
pixels (quarters of the picture, 8 directions, 3 speeds). Of classes that motion tells
and scenes do not, the second is far above the first, and a good encoder beside it.
Prints and writes shares of the videos: of the held-out part, and with a rule (see
eval.groups of configs/evaluate.py) of all, leaving one group out. Damaged videos are
named and left out.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import sys

import cv2
import numpy as np

from motion_jax.config import UserError
from motion_jax.data import media
from motion_jax.data.labels import check_apart, common_classes
from motion_jax.data.sources import DecodeError, open_source
from motion_jax.evaluation.groups import check_groups, groups_of, without_each
from motion_jax.evaluation.measures import linear, retrieval

PAIRS, SIDE, GRID = 12, 128, 16
SPEEDS = (0.5, 1, 2)  # pixels between frames; slower ones do not count
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("folder")
  for name in ("groups", "train_list", "heldout_list", "out"):
    parser.add_argument(f"--{name}", default="")
  options = parser.parse_args()
  values = baselines(
    options.folder, options.groups, options.train_list, options.heldout_list
  )
  text = json.dumps(values, indent=2)
  if options.out:
    pathlib.Path(options.out).write_text(text + "\n")
  print(text)


def baselines(
  folder: str, groups: str = "", train_list: str = "", heldout_list: str = ""
) -> dict[str, float]:
  """Returns {'still_r1', 'still_knn', ...}; with a rule {'still_r1_groups', ...}, too.

  Raises:
    UserError: if the folder, its classes or the groups do not serve.
  """
  if bool(train_list) != bool(heldout_list):
    raise UserError("give both --train_list and --heldout_list, or neither")
  media.set_up_opencv()
  parts = [
    open_source(folder, split=split, list_file=file or None)
    for split, file in (("train", train_list), ("heldout", heldout_list))
  ]
  common_classes(*parts)
  check_apart(*parts)
  records = [part[place] for part in parts for place in range(len(part))]
  labels = np.asarray([record.label for record in records])
  if groups:
    names = np.concatenate([groups_of(part, groups) for part in parts])
    check_groups(names, labels, groups)
  with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    found = [*pool.map(descriptors_or_none, records)]
  whole = np.asarray([each is not None for each in found])
  heldout = np.arange(len(records)) >= len(parts[0])
  if not whole[heldout].any() or not whole[~heldout].any():
    raise UserError(f"{folder}: all videos of a part are damaged")
  labels, heldout = labels[whole], heldout[whole]
  values = {}
  for place, name in enumerate(("still", "flow")):
    features = np.stack([each[place] for each in found if each is not None])

    def scores(out, name=name, features=features):
      sets = features[out], labels[out], features[~out], labels[~out]
      return {
        f"{name}_r1": retrieval.recall(*sets, ks=(1,))["r1"],
        f"{name}_knn": retrieval.knn_accuracy(*sets)["top1"],
        f"{name}_linear": linear.linear_accuracy(*sets[2:], *sets[:2])["top1"],
      }

    values |= scores(heldout)
    if groups:
      left_out = without_each(names[whole], scores)
      values |= {f"{key}_groups": value for key, value in left_out.items()}
  return values


def descriptors_or_none(record) -> tuple[np.ndarray, np.ndarray] | None:
  """The same of a video that can be decoded; another is named."""
  try:
    return descriptors(record)
  except DecodeError as error:
    print(f"left out: {record.id} is damaged: {error}", file=sys.stderr)
    return None


def descriptors(record) -> tuple[np.ndarray, np.ndarray]:
  """The still picture [256] and the histogram of the flow [96] of a video."""

  def choose(count, fps):
    firsts = np.unique(np.linspace(0, max(count - 2, 0), PAIRS).astype(int))
    return [
      count // 2,
      *np.stack([firsts, np.minimum(firsts + 1, count - 1)], 1).ravel(),
    ]

  frames = media.read_record(record, choose, SIDE)
  grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
  still = cv2.resize(grey[0], (GRID, GRID), interpolation=cv2.INTER_AREA)
  still = still.astype(np.float64).ravel()
  histogram = np.zeros((2, 2, 8, len(SPEEDS)))
  for first, second in zip(grey[1::2], grey[2::2], strict=True):
    flow = cv2.calcOpticalFlowFarneback(first, second, None, *FARNEBACK)
    speed, angle = (
      np.hypot(*flow.transpose(2, 0, 1)),
      np.arctan2(flow[..., 1], flow[..., 0]),
    )
    direction = np.floor((angle + np.pi) / (np.pi / 4) + 0.5).astype(int) % 8
    level = np.digitize(speed, SPEEDS) - 1
    y, x = np.nonzero(level >= 0)
    half = np.array(speed.shape) // 2
    place = np.minimum(y // half[0], 1), np.minimum(x // half[1], 1)
    np.add.at(histogram, (*place, direction[y, x], level[y, x]), 1)
  return still - still.mean(), np.sqrt(histogram.ravel() / max(histogram.sum(), 1e-9))


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(f"error: {error}")
