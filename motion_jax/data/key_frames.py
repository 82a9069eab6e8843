"""Clips around the key frames of AVA, with the boxes of people and their actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motion_jax.data.clips import Clip
from motion_jax.data.media import read_record
from motion_jax.data.sources import Record


@dataclasses.dataclass(frozen=True)
class People:
  """The people on a key frame.

  Attributes:
    boxes: [N, 4] float32, (x1, y1, x2, y2) as shares of the frame's sides.
    actions: [N, A] bool; column `number - 1` is the action with that number.
  """

  boxes: np.ndarray
  actions: np.ndarray


def annotated_people(rows: Sequence[Sequence], actions: int) -> dict[str, People]:
  """Groups annotations by key frame and box: a person has several actions.

  Args:
    rows: [id, x1, y1, x2, y2, action, score], as in the notes of the prepared AVA.
    actions: number of actions A.
  """
  frames: dict[str, dict[tuple, list[int]]] = {}
  for name, *box, action, _ in rows:
    frames.setdefault(name, {}).setdefault(tuple(box), []).append(action)
  return {
    name: People(
      np.asarray([*people], np.float32),
      np.asarray(
        [np.isin(np.arange(1, actions + 1), found) for found in people.values()]
      ),
    )
    for name, people in frames.items()
  }


def detected_people(
  rows: Sequence[Sequence], actions: int, least_score: float
) -> dict[str, People]:
  """Groups the boxes of a person detector by key frame, the surest first.

  Args:
    rows: as for `annotated_people`; their actions are ignored.
    actions: number of actions A; all are False.
    least_score: boxes with a lower score are left out.
  """
  frames: dict[str, list] = {}
  for name, *box, _, score in sorted(rows, key=lambda row: -row[-1]):
    if score >= least_score:
      frames.setdefault(name, []).append(box)
  return {
    name: People(np.asarray(boxes, np.float32), np.zeros((len(boxes), actions), bool))
    for name, boxes in frames.items()
  }


def with_detected(
  annotated: Mapping[str, People], detected: Mapping[str, People], least_iou: float
) -> dict[str, People]:
  """Adds detected boxes that fit annotated ones, with the actions of these.

  As SlowFast trains on AVA: a detector's boxes, which the test has, are a little off.

  Args:
    annotated, detected: by key frame.
    least_iou: least intersection over union, in (0, 1], with the annotated box that
      is overlapped most.
  """
  people = dict(annotated)
  for name, known in annotated.items():
    if name not in detected:
      continue
    overlaps = _overlaps(detected[name].boxes, known.boxes)
    fits = overlaps.max(axis=1) >= least_iou
    same = overlaps.argmax(axis=1)[fits]
    people[name] = People(
      np.concatenate([known.boxes, detected[name].boxes[fits]]),
      np.concatenate([known.actions, known.actions[same]]),
    )
  return people


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Intersection over union [N, M] of boxes that are not empty."""
  low = np.maximum(one[:, None, :2], other[None, :, :2])
  high = np.minimum(one[:, None, 2:], other[None, :, 2:])
  common = np.prod(np.maximum(high - low, 0), axis=-1)
  areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (one, other)]
  return common / (areas[0][:, None] + areas[1] - common)


class KeyFrames(Clip):
  """The clip whose frame number T / 2 is the key frame in the middle of a record.

  Args:
    people: by the identifier of the record; records without people have none.
    most: people of a frame that fit; the first ones are kept.
    actions: number of actions A.
    frames, interval, short_side, canvas, fps: as for `Clip`.
  """

  _turn = False  # a detector sees whole frames

  def __init__(
    self, people: Mapping[str, People], most: int, actions: int, **options: Any
  ):
    super().__init__(**options)
    self._people, self._most, self._actions = people, most, actions

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes the clip; of frames beyond the canvas the middle is kept.

    Returns:
      video: [T, H, W, 3] uint8, zero outside the frames.
      extent: [2] int32, height and width of the frames in it.
      boxes: [most, 4] float32, as shares of the frame's sides.
      actions: [most, A] bool.
      person: [most] bool, False for rows without a box.
    """
    del rng  # the clip is given by its key frame

    def choose(count, fps):
      step = self.interval * (fps / self.fps if self.fps else 1.0)
      offsets = (np.arange(self.frames) - self.frames // 2) * step
      return np.round(count // 2 + offsets).clip(0, count - 1).astype(np.int64)

    out = self.empty()
    frames = read_record(record, choose, self.short_side)
    self._fill(out["video"], out["extent"], frames, (0.5, 0.5))
    people = self._people.get(record.id)
    if people is not None:
      count = min(len(people.boxes), self._most)
      out["boxes"][:count] = people.boxes[:count]
      out["actions"][:count] = people.actions[:count]
      out["person"][:count] = True
    return out

  def empty(self) -> dict:
    return {
      **super().empty(),
      "boxes": np.zeros((self._most, 4), np.float32),
      "actions": np.zeros((self._most, self._actions), bool),
      "person": np.zeros(self._most, bool),
    }
