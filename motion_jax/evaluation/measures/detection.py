"""Frame mAP of action detection, as the official evaluation of AVA computes it.

A person on a key frame is a box with one row per action. Every class is scored alone:
detections of all frames, in the order of falling scores, are true if the box of the
same frame and class that they overlap most is still free and overlaps them enough.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from motion_jax.data.box_rows import BoxRows

_IOU = 0.5  # least overlap


@dataclasses.dataclass(frozen=True)
class Boxes:
  """Boxes of actions on frames, one row per box and action.

  Attributes:
    frames: [N], what identifies the frame of each row, such as (video, second).
    boxes: [N, 4] float, (x1, y1, x2, y2); any unit, the same in what is compared.
    classes: [N] int.
    scores: [N] float; None for the truth.
  """

  frames: Sequence[Hashable]
  boxes: np.ndarray
  classes: np.ndarray
  scores: np.ndarray | None = None


def frame_map(
  truth: Boxes,
  detections: Boxes,
  *,
  classes: Collection[int],
  excluded: Collection[Hashable] = (),
) -> tuple[float, dict[int, float]]:
  """Mean over classes of the average precision of detections on frames.

  Args:
    truth: what is to be found.
    detections: what was found, with finite scores.
    classes: those that count; rows of others are left out.
    excluded: frames that are left out (AVA's excluded time stamps).

  Returns:
    The mean over the classes that have ground truth (NaN if none has), and the average
    precision of each class, NaN where there is no ground truth.
  """
  excluded = frozenset(excluded)
  wanted = _by_class(truth, excluded, np.ones(len(truth.frames), bool))
  boxes = np.asarray(detections.boxes, np.float64).reshape(-1, 4)
  has_area = (boxes[:, :2] < boxes[:, 2:]).all(1)
  found = _by_class(detections, excluded, has_area)
  values = {
    number: _class_precision(
      truth, detections, wanted.get(number, []), found.get(number, [])
    )
    for number in sorted(classes)
  }
  known = [value for value in values.values() if not np.isnan(value)]
  return (float(np.mean(known)) if known else float("nan")), values


def ava_map(notes: Mapping, detections: Boxes) -> tuple[float, dict[int, float]]:
  """Frame mAP on the validation part, with excluded seconds left out.

  Args:
    notes: of the prepared AVA: `boxes`, `excluded` and `evaluated`.
    detections: their frames are identifiers of records.
  """
  truth = BoxRows.of(notes["boxes"]["val"])
  return frame_map(
    Boxes(frames=truth.frames(), boxes=truth.boxes, classes=truth.actions),
    detections,
    classes=notes["evaluated"],
    excluded=notes["excluded"],
  )


def average_precision(correct: np.ndarray, positives: int) -> float:
  """Area under the envelope of precision over recall, of all points.

  Args:
    correct: [N] bool, whether each detection is true, in the order of falling scores.
    positives: number of boxes that are to be found.

  Returns:
    In [0, 1]; NaN if there is nothing to be found.
  """
  if not positives:
    return float("nan")
  true = np.cumsum(correct)
  precision = true / np.arange(1, len(true) + 1)
  envelope = np.maximum.accumulate(precision[::-1])[::-1]
  recall_steps = np.diff(true / positives, prepend=0)
  return float((recall_steps * envelope).sum())


def box_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes [N, 4] and [M, 4]: [N, M]; 0 if both are empty."""
  one, other = (np.asarray(x, np.float64).reshape(-1, 4) for x in (one, other))
  low = np.maximum(one[:, None, :2], other[None, :, :2])
  high = np.minimum(one[:, None, 2:], other[None, :, 2:])
  common = np.prod(np.maximum(high - low, 0), axis=-1)
  areas = [np.prod(x[:, 2:] - x[:, :2], axis=-1) for x in (one, other)]
  union = areas[0][:, None] + areas[1][None] - common
  return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _by_class(rows: Boxes, excluded, usable) -> dict[int, list[int]]:
  """Numbers of the rows of each class, without those of excluded frames."""
  groups: dict[int, list[int]] = {}
  for number, (frame, label) in enumerate(zip(rows.frames, rows.classes, strict=True)):
    if usable[number] and frame not in excluded:
      groups.setdefault(int(label), []).append(number)
  return groups


def _class_precision(truth, detections, wanted, found) -> float:
  by_frame: dict[Hashable, list[int]] = {}
  for row in wanted:
    by_frame.setdefault(truth.frames[row], []).append(row)
  boxes = np.asarray(truth.boxes, np.float64)
  scores = np.asarray(detections.scores, np.float64)
  order = sorted(found, key=lambda row: -scores[row])  # stable: first rows first
  taken, correct = set(), []
  for row in order:
    rivals = by_frame.get(detections.frames[row], [])
    hit = False
    if rivals:
      overlaps = box_iou(detections.boxes[row], boxes[rivals])[0]
      best = int(overlaps.argmax())
      if overlaps[best] >= _IOU and rivals[best] not in taken:
        taken.add(rivals[best])
        hit = True
    correct.append(hit)
  return average_precision(np.asarray(correct, bool), len(wanted))
