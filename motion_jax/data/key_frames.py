"""Clips around the key frames of AVA, with the boxes of people and their actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from motion_jax.data.clips import Clip
from motion_jax.data.media import read_record, resized_shape
from motion_jax.data.people import People
from motion_jax.data.sources import Record


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
      whole: [2] int32, the same of the frames before they were cut.
      boxes: [most, 4] float32, as shares of the whole frame's sides.
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
    out["whole"][:] = resized_shape(*frames[0].shape[:2], self.short_side)
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
      "whole": np.ones(2, np.int32),
      "boxes": np.zeros((self._most, 4), np.float32),
      "actions": np.zeros((self._most, self._actions), bool),
      "person": np.zeros(self._most, bool),
    }
