"""Who is on a key frame and what they do, for all key frames of a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from motion_jax.data.box_rows import BoxRows


@dataclasses.dataclass(frozen=True)
class People:
  """The people on a key frame.

  Attributes:
    boxes: [N, 4] float32, (x1, y1, x2, y2) as shares of the frame's sides.
    actions: [N, A] bool; column `number - 1` is the action with that number.
  """

  boxes: np.ndarray
  actions: np.ndarray


class PeopleOfFrames(Mapping[str, People]):
  """`People` by the identifier of the key frame, in few bytes: processes get copies.

  Args:
    names: [F] bytes, the frames with people, sorted.
    firsts: [F + 1] number of the first person of each frame, and of all people.
    boxes: [N, 4], of all people.
    actions: [N, A] bool; or packed, [N, ceil(A / 8)] uint8.
    count: number of actions A.
  """

  def __init__(self, names, firsts, boxes, actions, count: int):
    self.names, self.firsts, self.count = names, firsts, count
    self.boxes = np.asarray(boxes, np.float32)
    is_packed = actions.dtype == np.uint8
    self.actions = actions if is_packed else np.packbits(actions, axis=1)

  def __len__(self) -> int:
    return len(self.names)

  def __iter__(self) -> Iterator[str]:
    return (name.decode() for name in self.names.tolist())

  def __getitem__(self, name: str) -> People:
    own = self.numbers(self.position(name.encode()))
    actions = np.unpackbits(self.actions[own], axis=1, count=self.count)
    return People(self.boxes[own], actions.astype(bool))

  def position(self, name: bytes) -> int:
    """Where a frame is in `names`; KeyError if it is not."""
    found = int(np.searchsorted(self.names, name))
    if found == len(self.names) or self.names[found] != name:
      raise KeyError(name.decode())
    return found

  def numbers(self, position: int) -> slice:
    """The people of the frame at a position."""
    return slice(self.firsts[position], self.firsts[position + 1])


def annotated_people(rows: Sequence[Sequence], actions: int) -> PeopleOfFrames:
  """Groups annotations by key frame and box: a person has several actions.

  Args:
    rows: as in the notes of the prepared AVA; see `BoxRows`.
    actions: number of actions A.
  """
  rows = BoxRows.of(rows)
  keys = np.column_stack([rows.boxes[:, ::-1], rows.frame])
  order = np.lexsort(keys.T)  # by frame and box; equal ones stay in their order
  is_new = np.ones(len(order), bool)
  is_new[1:] = (keys[order[1:]] != keys[order[:-1]]).any(1)
  # Persons in the order in which a frame's rows have them.
  firsts = order[is_new]
  by_frame = np.lexsort([firsts, rows.frame[firsts]])
  person = np.empty(len(order), np.int64)
  person[order] = np.argsort(by_frame)[np.cumsum(is_new) - 1]
  does = np.zeros((len(firsts), actions), bool)
  known = (rows.actions >= 1) & (rows.actions <= actions)
  does[person[known], rows.actions[known] - 1] = True
  return _of_frames(rows, firsts[by_frame], does)


def detected_people(
  rows: Sequence[Sequence], actions: int, least_score: float
) -> PeopleOfFrames:
  """Groups the boxes of a person detector by key frame, the surest first.

  Args:
    rows: as for `annotated_people`; their actions are ignored.
    actions: number of actions A; all are False.
    least_score: boxes with a lower score are left out.
  """
  rows = BoxRows.of(rows)
  order = np.lexsort([-rows.scores, rows.frame])
  order = order[rows.scores[order] >= least_score]
  return _of_frames(rows, order, np.zeros((len(order), actions), bool))


def _of_frames(rows: BoxRows, order: np.ndarray, actions: np.ndarray):
  """People that some rows tell of, sorted by their frames."""
  present, firsts = np.unique(rows.frame[order], return_index=True)
  firsts = np.append(firsts, len(order))
  count = actions.shape[1]
  return PeopleOfFrames(rows.names[present], firsts, rows.boxes[order], actions, count)


def with_detected(
  annotated: PeopleOfFrames, detected: PeopleOfFrames, least_iou: float
) -> PeopleOfFrames:
  """Adds detected boxes that fit annotated ones, with the actions of these.

  As SlowFast trains on AVA: a detector's boxes, which the test has, are a little off.

  Args:
    annotated, detected: by key frame.
    least_iou: least intersection over union, in (0, 1], with the annotated box that
      is overlapped most.
  """
  boxes, alike, firsts = [], [], [0]  # `alike`: whose actions a person has
  for number, name in enumerate(annotated.names):
    own = annotated.numbers(number)
    boxes.append(annotated.boxes[own])
    alike.append(np.arange(own.start, own.stop))
    try:
      others = detected.boxes[detected.numbers(detected.position(name))]
    except KeyError:
      others = boxes[-1][:0]
    overlaps = _overlaps(others, boxes[-1])
    fits = overlaps.max(axis=1) >= least_iou
    alike.append(own.start + overlaps.argmax(axis=1)[fits])
    boxes.append(others[fits])
    firsts.append(firsts[-1] + len(alike[-2]) + len(alike[-1]))
  return PeopleOfFrames(
    annotated.names,
    np.array(firsts),
    np.concatenate([annotated.boxes[:0], *boxes]),
    annotated.actions[np.concatenate([np.zeros(0, int), *alike])],
    annotated.count,
  )


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Intersection over union [N, M] of boxes that are not empty."""
  low = np.maximum(one[:, None, :2], other[None, :, :2])
  high = np.minimum(one[:, None, 2:], other[None, :, 2:])
  common = np.prod(np.maximum(high - low, 0), axis=-1)
  areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (one, other)]
  return common / (areas[0][:, None] + areas[1] - common)
