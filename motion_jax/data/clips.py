"""Samplers: what a batch takes from a record.

A sampler is called with a record and a NumPy generator and returns a dict of arrays of
fixed shapes; `empty()` returns the same shapes as zeros, for records that cannot be
decoded. Samplers are small, stateless and picklable.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from motion_jax.config import UserError
from motion_jax.data.media import DecodeError, place, read_record, resize_short_side
from motion_jax.data.sources import Record

__all__ = ["Clip", "DecodeError", "Sampler", "SourceFrame"]


class Sampler(Protocol):
  """Turns a record into arrays of fixed shapes."""

  def __call__(self, record: Record, rng: np.random.Generator) -> dict: ...

  def empty(self) -> dict: ...


class SourceFrame:
  """One uniformly random frame of a video, or the image: the source of MoSI clips."""

  def __init__(self, short_side: int, canvas: tuple[int, int]):
    """Fixes the sizes.

    Args:
      short_side: length in pixels to which the shorter side is resized.
      canvas: (height, width) in pixels of the array that the frame is put into, at the
        top left. A longer frame is cut to a random window.
    """
    if short_side < 1 or min(canvas) < 1:
      raise UserError(
        f"short_side {short_side} and canvas {tuple(canvas)} must be at least 1 pixel"
      )
    self.short_side = int(short_side)
    self.canvas = (int(canvas[0]), int(canvas[1]))

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes, resizes and places one frame.

    Returns:
      image: [canvas height, canvas width, 3] uint8, zero outside the frame.
      extent: [2] int32, height and width of the frame in it.

    Raises:
      DecodeError: if the frame cannot be decoded.
    """
    draw, *places = rng.random(3)
    frame = read_record(record, lambda count, fps: [int(draw * count)])[0]
    frame = resize_short_side(frame, self.short_side)
    out = self.empty()
    out["extent"][:] = place(frame, out["image"], places)
    return out

  def empty(self) -> dict:
    return {
      "image": np.zeros((*self.canvas, 3), np.uint8),
      "extent": np.zeros(2, np.int32),
    }


class Clip:
  """Frames of a video at a fixed pace, for training or as evenly spaced views."""

  def __init__(
    self,
    frames: int,
    interval: int,
    *,
    short_side: int,
    canvas: tuple[int, int],
    views: int | None = None,
    fps: float = 30.0,
  ):
    """Fixes pace and sizes.

    Args:
      frames: length of a clip.
      interval: frames from one to the next, at the rate `fps`; videos of other rates
        are sampled at the same pace in seconds.
      short_side: length in pixels to which the shorter side is resized.
      canvas: (height, width) in pixels; as in `SourceFrame`.
      views: None for one clip at a random time, or a number of evenly spaced clips.
      fps: rate that `interval` refers to.
    """
    if min(frames, interval, short_side, *canvas) < 1 or (views or 1) < 1:
      raise UserError(
        f"a clip of {frames} frames at interval {interval}, short_side {short_side}, "
        f"canvas {tuple(canvas)}, views {views}: all must be at least 1"
      )
    self.frames, self.interval, self.fps = frames, interval, fps
    self.short_side, self.canvas, self.views = short_side, tuple(canvas), views

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes the clip or the views.

    Returns:
      video: [T, H, W, 3] uint8, with views [views, T, H, W, 3]; zero outside.
      extent: [2] int32, height and width of the frames in it.

    Raises:
      DecodeError: if one of the frames cannot be decoded.
    """
    start, *places = rng.random(3)
    starts = [start] if self.views is None else view_starts(self.views)
    video = read_record(record, lambda count, fps: self._indices(count, fps, starts))
    out = self.empty()
    target = out["video"].reshape(-1, *self.canvas, 3)
    for frame, slot in zip(video, target, strict=True):
      resized = resize_short_side(frame, self.short_side)
      out["extent"][:] = place(resized, slot, places)
    return out

  def _indices(self, count: int, fps: float, starts: list[float]) -> np.ndarray:
    options = {"frames": self.frames, "interval": self.interval, "target_fps": self.fps}
    return np.concatenate([clip_indices(count, fps, s, **options) for s in starts])

  def empty(self) -> dict:
    shape = (self.frames, *self.canvas, 3)
    if self.views is not None:
      shape = (self.views, *shape)
    return {"video": np.zeros(shape, np.uint8), "extent": np.zeros(2, np.int32)}


def view_starts(views: int) -> list[float]:
  """Returns where evenly spaced views start, as fractions of the latest start.

  As in the official MoSI code: view i of n at i / n, a single view in the middle.
  """
  return [0.5] if views == 1 else [i / views for i in range(views)]


def clip_indices(
  num_frames: int,
  fps: float,
  start: float,
  *,
  frames: int,
  interval: int,
  target_fps: float = 30.0,
) -> np.ndarray:
  """Returns the frame numbers of a clip, as in the official MoSI code.

  Args:
    num_frames: length of the video.
    fps: rate of the video.
    start: fraction of the latest possible start, in [0, 1).
    frames: length of the clip.
    interval: frames from one to the next at `target_fps`.
    target_fps: rate that `interval` refers to.

  Returns:
    [frames] int64; a video that is too short repeats its last frame.
  """
  span = frames * interval * fps / target_fps
  first = max(num_frames - span, 0) * start
  times = np.linspace(first, first + span - 1, frames)
  return times.clip(0, num_frames - 1).astype(np.int64)
