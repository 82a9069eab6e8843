"""Samplers: what a batch takes from a record.

A sampler is called with a record and a NumPy generator and returns a dict of arrays of
fixed shapes; `empty()` returns the same shapes as zeros, for records that cannot be
decoded. Samplers are small, stateless and picklable.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from motion_jax.config import UserError
from motion_jax.data.frame_numbers import (
  clip_indices,
  segment_indices,
  view_starts,
)
from motion_jax.data.media import (
  place,
  read_parts,
  read_record,
  resize_short_side,
)
from motion_jax.data.sources import Record

logger = logging.getLogger("motion_jax")
_PART = 2**24  # bytes of clips that are decoded at a time; those of 10 seconds or so
_warned = False  # of a video shorter than a clip


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
        top left, upright frames in a wide canvas turned (`media.place`). A longer frame
        is cut to a random window.
    """
    self.short_side = int(short_side)
    self.canvas = (int(canvas[0]), int(canvas[1]))

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes, resizes and places one frame.

    Returns:
      image: [canvas height, canvas width, 3] uint8, zero outside the frame.
      extent: [2] int32, height and width of the frame, whether it is turned or not.

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
  """Frames at a fixed pace from a uniformly random time of a video.

  The settings are those of `Views`, which takes the clips of a test.
  """

  _turn = True  # upright frames in a wide canvas; see `media.place`

  def __init__(
    self,
    frames: int,
    interval: int,
    *,
    short_side: int,
    canvas: tuple[int, int],
    fps: float = 30.0,
  ):
    """Fixes pace and sizes.

    Args:
      frames: length of a clip.
      interval: a clip spans `frames * interval` frames of the rate `fps`, evenly
        divided as in MoSI's code: from one to the next are about
        `interval * (1 + 1 / frames)` of them, exactly 1 for an interval of 1. Videos of
        other rates are sampled at the same pace in seconds.
      short_side: length in pixels to which the shorter side is resized.
      canvas: (height, width) in pixels; as in `SourceFrame`.
      fps: rate that `interval` refers to; 0 for every video's own.
    """
    if min(frames, interval, short_side, *canvas) < 1 or fps < 0:
      raise UserError(
        f"a clip of {frames} frames at interval {interval} of {fps} fps, short_side "
        f"{short_side}, canvas {tuple(canvas)}: all must be at least 1, fps 0 or more"
      )
    self.frames, self.interval, self.fps = frames, interval, fps
    self.short_side, self.canvas = short_side, tuple(canvas)

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes the clip.

    Returns:
      video: [T, H, W, 3] uint8, zero outside the frames.
      extent: [2] int32, height and width of the frames in it.

    Raises:
      DecodeError: if one of the frames cannot be decoded.
    """
    start, *places = rng.random(3)

    def choose(count, fps):
      self._warn_if_short(record, count, fps)
      return self._indices(count, fps, [start])

    out = self.empty()
    frames = read_record(record, choose, self.short_side)
    self._fill(out["video"], out["extent"], frames, places)
    return out

  def empty(self) -> dict:
    return {
      "video": np.zeros((self.frames, *self.canvas, 3), np.uint8),
      "extent": np.zeros(2, np.int32),
    }

  def span(self, fps: float) -> float:
    """Length of a clip in frames of a video with the rate `fps`."""
    return self.frames * self.interval * (fps / self.fps if self.fps else 1.0)

  def _indices(self, count: int, fps: float, starts: Sequence[float]) -> np.ndarray:
    """Frame numbers of clips that start at fractions of the latest possible start."""
    span = self.span(fps)
    firsts = max(count - span, 0) * np.asarray(starts)
    return clip_indices(count, firsts, frames=self.frames, span=span)

  def _fill(self, video, extent, frames, places):
    for frame, slot in zip(frames, video, strict=True):
      frame = resize_short_side(frame, self.short_side)
      extent[:] = place(frame, slot, places, turn=self._turn)

  def _warn_if_short(self, record: Record, count: int, fps: float) -> None:
    global _warned
    if not _warned and count < math.floor(self.span(fps)):
      _warned = True
      logger.warning(
        "%s has %d frames, a clip spans %.0f: such videos repeat their last frame; "
        "fewer method.frames, or a smaller interval, make clips shorter (told once)",
        record.id,
        count,
        self.span(fps),
      )


class Views(Clip):
  """The clips of one video that a test looks at, from a single pass of decoding.

  In an evaluation every clip is a row of its own; a sampler of several clips for one
  row is no `Views`.

  Args:
    views: number of evenly spaced clips; 0 for all clips that follow one another.
    overlap: of those, the share of a clip that the next one shows again, in [0, 1).
    frames, interval, short_side, canvas, fps: as for `Clip`.
  """

  def __init__(
    self, views: int, frames: int, interval: int, *, overlap: float = 0.0, **options
  ):
    super().__init__(frames, interval, **options)
    if views < 0 or not 0 <= overlap < 1:
      raise UserError(
        f"{views} views per video: give 1 or more, or 0 for all clips; they overlap by "
        f"{overlap}, which must be in [0, 1)"
      )
    self.views, self.overlap = views, overlap

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes the clips; of frames beyond the canvas the middle is kept.

    Returns:
      video: [V, T, H, W, 3] uint8, zero outside the frames.
      extent: [V, 2] int32, height and width of the frames.

    Raises:
      DecodeError: if one of the frames cannot be decoded.
    """
    del rng  # a test looks at the same clips every time
    (clips,) = self._parts(record, None)
    return clips

  def parts(self, record: Record) -> Iterator[dict]:
    """Decodes all clips of a video a few at a time: those of an hour are gigabytes.

    Args:
      record: the video.

    Yields:
      What a call returns, of the clips in order.

    Raises:
      DecodeError: as soon as a frame cannot be decoded; no part is of any use then.
    """
    return self._parts(record, None if self.views else _PART)

  def _parts(self, record: Record, most: int | None) -> Iterator[dict]:
    def choose(count, fps):
      self._warn_if_short(record, count, fps)
      clips = self._clip_indices(count, fps).reshape(-1, self.frames)
      fits = len(clips) if most is None else most // self.empty()["video"].nbytes
      step = max(1, fits)
      return [clips[i : i + step].ravel() for i in range(0, len(clips), step)]

    for frames in read_parts(record, choose, self.short_side):
      out = {
        name: np.zeros((len(frames) // self.frames, *array.shape), array.dtype)
        for name, array in self.empty().items()
      }
      target = out["video"].reshape(-1, *self.canvas, 3)
      extent = np.zeros(2, np.int32)
      self._fill(target, extent, frames, (0.5, 0.5))
      out["extent"][:] = extent
      yield out

  def _clip_indices(self, count: int, fps: float) -> np.ndarray:
    if self.views:
      return self._indices(count, fps, view_starts(self.views))
    span = self.span(fps)
    step = span * (1 - self.overlap)
    firsts = np.arange(max(1, int((count - span) // step) + 1)) * step
    return clip_indices(count, firsts, frames=self.frames, span=span)


class Segments(Clip):
  """A frame from each of equal segments of a video: of all of it, whatever its length.

  As SlowFast samples Something-Something V2, whose videos show one action each.

  Args:
    frames: number of segments.
    middle: take the middle frame of each segment, as in a test, and the middle of
      frames beyond the canvas; otherwise random ones.
    short_side, canvas: as for `Clip`.
  """

  def __init__(self, frames: int, *, middle: bool = False, **sizes):
    super().__init__(frames, 1, fps=0.0, **sizes)
    self.middle = middle

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes the frames; see `Clip`. A short video repeats frames."""
    draws, places = rng.random(self.frames), rng.random(2)
    if self.middle:
      draws, places = None, (0.5, 0.5)
    out = self.empty()
    frames = read_record(
      record,
      lambda count, fps: segment_indices(count, self.frames, draws),
      self.short_side,
    )
    self._fill(out["video"], out["extent"], frames, places)
    return out
