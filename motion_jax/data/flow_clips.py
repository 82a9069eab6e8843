"""A clip and prepared optical flow between its frames, for MAS."""

from __future__ import annotations

import numpy as np

from motion_jax.config import UserError
from motion_jax.data.clips import Clip
from motion_jax.data.flow_records import FlowRecords
from motion_jax.data.media import place, read_record, resized_shape
from motion_jax.data.motion_codec import ZERO_FLOW
from motion_jax.data.sources import DecodeError, Record

INTERVAL = 1  # of the prepared flow


class FlowClip(Clip):
  """Neighbouring frames from a random time, and the flow from each to the one before.

  Prepared flow of another resolution is resized to the frames. Its values stay those of
  its own: no label of MAS depends on their scale.

  Args:
    flow: prepared with `INTERVAL`.
    middle: the clip in the middle of the video instead.
    frames, interval, fps, short_side, canvas: as for `Clip`; of the rate and interval
      only neighbouring frames of the video are possible.

  Raises:
    UserError: for another interval or rate.
  """

  def __init__(self, flow: FlowRecords, *, middle: bool, **options):
    super().__init__(**options)
    if self.interval != INTERVAL or self.fps:
      raise UserError(
        f"prepared flow is between neighbouring frames: set data.interval={INTERVAL} "
        f"and data.fps=0 (found {self.interval} and {self.fps:g}), or data.flow=''"
      )
    self.flow, self.middle = flow, middle

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes the clip.

    Returns:
      video: [T, H, W, 3] uint8, zero outside the frames.
      extent: [2] int32, height and width of the frames in it.
      flow: [T - 1, H, W, 2] uint8, of frames 1 to T - 1, encoded as in `motion_codec`;
        without motion outside the frames and where a short video repeats its last one.

    Raises:
      DecodeError: if one of the frames cannot be decoded, or the prepared flow is of
        another version of the video: of other length or other shape.
    """
    start, *places = rng.random(3)
    if self.middle:
      start, *places = 0.5, 0.5, 0.5
    head, chosen = self.flow.head(record.id), []

    def choose(count, fps):
      head.check(count)
      self._warn_if_short(record, count, fps)
      chosen[:] = self._indices(count, fps, [start])
      return chosen

    frames = read_record(record, choose, self.short_side)
    out, size = self.empty(), resized_shape(*frames[0].shape[:2], self.short_side)
    self._fill(out["video"], out["extent"], frames, places)
    _check_shape(record, (head.height, head.width), size)
    numbers = np.array(chosen)
    moving = np.flatnonzero(np.diff(numbers))
    found = self.flow.frames(head, numbers[1:][moving], size)
    for slot, frame in zip(moving, found, strict=True):
      place(frame, out["flow"][slot], places)
    return out

  def empty(self) -> dict:
    shape = (self.frames - 1, *self.canvas, 2)
    return super().empty() | {"flow": np.full(shape, ZERO_FLOW, np.uint8)}


def _check_shape(record, flow, video):
  """Raises unless (height, width) of both are one shape at two resolutions."""
  if abs(flow[0] * video[1] - flow[1] * video[0]) > 2 * max(*flow, *video):
    raise DecodeError(
      f"{record.id}: its motion is {flow[1]}x{flow[0]} and the video "
      f"{video[1]}x{video[0]}, which is another shape: prepare the motion again"
    )
