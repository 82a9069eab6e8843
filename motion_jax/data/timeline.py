"""When each picture of a video is shown, without decoding it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import av
import numpy as np

_SEEK_GAP = 8  # frames; rolling forward over fewer is cheaper than a seek
_DEFAULT_FPS = 25.0  # of streams that state no rate


class VideoError(Exception):
  """A video cannot be opened, or a frame that it promises cannot be decoded."""


@contextlib.contextmanager
def video_errors() -> Iterator[None]:
  """Turns every exception into a `VideoError`, with the exception as its cause.

  A damaged file can make the libraries return anything, and raise anything later on.
  """
  try:
    yield
  except VideoError:
    raise
  except Exception as error:
    reason = error.strerror if isinstance(error, av.FFmpegError) else str(error)
    raise VideoError(reason or type(error).__name__) from error


@dataclasses.dataclass(frozen=True)
class Timeline:
  """The pictures of a video in the order in which they are shown."""

  count: int
  fps: float
  pts: np.ndarray | None  # [count] sorted time stamps; None: unknown
  keys: Callable[[], np.ndarray] | None  # sorted time stamps of the key frames
  from_header: bool = False

  def times(self, indices: np.ndarray) -> np.ndarray:
    """Returns the time stamp of the picture shown for each frame number."""
    if self.from_header:
      return self.pts[indices]
    even = np.linspace(self.pts[0], self.pts[-1], self.count)
    if np.abs(self.pts - even).max() <= 1:  # constant rate, up to rounding
      return self.pts[indices]
    return self.pts[np.searchsorted(self.pts, even[indices] + 0.5, side="right") - 1]

  def runs(self, targets: np.ndarray, fresh: bool) -> list[tuple[list[int], bool]]:
    """Splits sorted targets where a seek saves decoding: (run, seek first)."""
    if len(targets) == 1:  # by far the most frequent; spares the list of key frames
      far = not fresh or targets[0] > self.pts[min(_SEEK_GAP, self.count - 1)]
      return [(targets.tolist(), far)]
    keys = self.keys()
    if not len(keys):
      raise VideoError("no key frames")
    ranks = np.searchsorted(self.pts, targets)
    key_before = np.searchsorted(keys, targets, side="right") - 1
    key_ranks = np.searchsorted(self.pts, keys[key_before.clip(0)])
    previous = np.concatenate([[0 if fresh else -self.count], ranks[:-1]])
    seeks = key_ranks - previous > _SEEK_GAP
    starts = np.flatnonzero(seeks | (np.arange(len(targets)) == 0))
    parts = np.split(targets, starts[1:])
    return [
      (part.tolist(), bool(seek))
      for part, seek in zip(parts, seeks[starts], strict=True)
    ]


def from_header(container, stream) -> Timeline | None:
  """Reads the time line from an mp4 index, if it is complete and of constant rate.

  Should a time stamp worked out here not exist, decoding misses it, and the packets
  are looked at after all.
  """
  rate, start, count = stream.average_rate, stream.start_time, stream.frames
  if "mp4" not in container.format.name or start is None or count < 2:
    return None
  entries = stream.index_entries
  if rate != stream.base_rate or len(entries) != count:
    return None
  step = 1 / (rate * stream.time_base)
  span = entries[count - 1].timestamp - entries[0].timestamp
  if step.denominator != 1 or span != (count - 1) * step:
    return None
  pts = start + int(step) * np.arange(count)

  def keys() -> np.ndarray:
    return pts[np.fromiter((entry.is_keyframe for entry in entries), bool, count)]

  return Timeline(count, float(rate), pts, keys, from_header=True)


def from_packets(container, stream) -> Timeline:
  """Reads the time line from the packets; decodes nothing.

  Raises:
    VideoError: if there are none.
    av.FFmpegError: if the very first one cannot be read.
  """
  pts, keys = [], []
  try:
    for packet in container.demux(stream):
      if packet.size and not packet.is_discard:
        pts.append(packet.pts)
        if packet.is_keyframe:
          keys.append(packet.pts)
  except av.FFmpegError:
    if not pts:  # what lies before the damage is usable
      raise
  if not pts:
    raise VideoError("no video frames")
  rate = stream.average_rate or stream.guessed_rate
  fps = float(rate) if rate else _DEFAULT_FPS
  # AVI has no time stamps of its own; those made up for these codecs are out of order.
  made_up = container.format.name == "avi" and stream.codec_context.name in (
    "h264",
    "hevc",
  )
  if made_up or None in pts or not keys or len(set(pts)) < len(pts):
    return Timeline(len(pts), fps, None, None)
  pts = np.sort(np.array(pts, np.int64))
  if len(pts) > 1:
    fps = float((len(pts) - 1) / ((pts[-1] - pts[0]) * stream.time_base))
  keys = np.sort(np.array(keys, np.int64))
  return Timeline(len(pts), fps, pts, lambda: keys)
