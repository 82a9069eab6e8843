"""When each picture of a video is shown, without decoding it."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence

import av
import numpy as np

from motion_jax.data import storage
from motion_jax.data.sources import DecodeError

_SEEK_GAP = 8  # frames; rolling forward over fewer is cheaper than a seek
_DEFAULT_FPS = 25.0  # of streams that state no rate
# These have no index. Their readers look for a decoding time, and stop at any picture.
_SEEKING_BY_DECODING_TIME = ("mpegts", "mpeg")


@dataclasses.dataclass(frozen=True)
class Timeline:
  """The pictures of a video in the order in which they are shown.

  Attributes:
    count: number of pictures.
    fps: average pictures per second.
    pts: [count] sorted time stamps; None: unknown.
    keys: sorted time stamps of the key frames; None: those in the file's index.
    seeks: where to seek to for each of `keys`.
    sizes: bytes of the key frame with each time stamp; empty: unknown.
    first_key: position in `pts` of the first key frame; the pictures before it may
      refer to ones that are not in the file.
  """

  count: int
  fps: float
  pts: np.ndarray | None
  keys: np.ndarray | None = None
  seeks: np.ndarray | None = None
  sizes: dict[int, int] = dataclasses.field(default_factory=dict)
  first_key: int = 0

  @property
  def from_header(self) -> bool:
    """Whether no packet has been looked at."""
    return self.pts is not None and self.keys is None

  def times(self, indices: np.ndarray) -> np.ndarray:
    """Returns the time stamp of the picture shown for each frame number."""
    if self.from_header:
      return self.pts[indices]
    even = np.linspace(self.pts[0], self.pts[-1], self.count)
    if np.abs(self.pts - even).max() <= 1:  # constant rate, up to rounding
      return self.pts[indices]
    return self.pts[np.searchsorted(self.pts, even[indices] + 0.5, side="right") - 1]

  def runs(
    self, targets: np.ndarray, stream, fresh: bool
  ) -> list[tuple[list[int], int | None]]:
    """Splits sorted targets where a seek saves reading.

    Args:
      targets: time stamps of pictures.
      stream: whose index has the key frames if the time line has not.
      fresh: nothing has been read yet, so that the first run may need no seek.

    Returns:
      Time stamps, and where to seek to before; None for no seek.
    """
    if len(targets) == 1 and self.from_header:  # spares the list of key frames
      near = fresh and targets[0] <= self.pts[min(_SEEK_GAP, self.count - 1)]
      return [(targets.tolist(), None if near else int(targets[0]))]
    keys, seeks = self.keys, self.seeks
    if keys is None:
      entries = stream.index_entries
      is_key = np.fromiter((e.is_keyframe for e in entries), bool, self.count)
      keys = seeks = self.pts[is_key]
    if not len(keys):
      raise DecodeError("no key frames")
    ranks = np.searchsorted(self.pts, targets)
    key_before = (np.searchsorted(keys, targets, side="right") - 1).clip(0)
    key_ranks = np.searchsorted(self.pts, keys[key_before])
    # A decoder that has been used may have been drained: it must seek.
    previous = np.concatenate([[0 if fresh else -np.inf], ranks[:-1]])
    is_far = key_ranks - previous > _SEEK_GAP
    starts = np.flatnonzero(is_far | (np.arange(len(targets)) == 0))
    parts = np.split(targets, starts[1:])
    return [
      (part.tolist(), int(seeks[key_before[start]]) if is_far[start] else None)
      for part, start in zip(parts, starts, strict=True)
    ]

  def with_first_pictures(self, shown: set[int]) -> Timeline:
    """Drops those pictures before the first key frame that are not in `shown`."""
    early = self.pts[: self.first_key]
    pts = np.concatenate([early[np.isin(early, [*shown])], self.pts[self.first_key :]])
    return dataclasses.replace(self, count=len(pts), pts=pts, first_key=0)


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
  first = entries[0].timestamp
  span = entries[count - 1].timestamp - first
  if step.denominator != 1 or span != (count - 1) * step:
    return None
  if start - first > stream.codec_context.reorder_depth * step:
    return None  # it begins with pictures that are shown before the key frame
  return Timeline(count, float(rate), start + int(step) * np.arange(count))


def from_packets(packets: Iterable, container, stream) -> Timeline:
  """Reads the time line from the packets; decodes nothing.

  Args:
    packets: all of the stream.
    container: of the stream.
    stream: what the packets are of.

  Raises:
    DecodeError: if there are none.
    av.FFmpegError: if the very first one cannot be read.
  """
  found, keys, sizes = [], [], {}
  try:
    for packet in packets:
      if not packet.size:
        continue
      if packet.is_keyframe:
        sizes[packet.pts] = packet.size
      if not packet.is_discard:
        if packet.is_keyframe:
          keys.append(len(found))
        found.append((packet.pts, packet.dts))
  except av.FFmpegError as error:
    if not found:  # what lies before the damage is usable
      raise
    if isinstance(error, OSError) and os.path.isfile(container.name):
      storage.check_path(container.name)
  if not found:
    raise DecodeError("no video frames")
  rate = stream.average_rate or stream.guessed_rate
  fps = float(rate) if rate else _DEFAULT_FPS
  pts, dts = zip(*found, strict=True)
  times = None
  if None not in pts and len(set(pts)) == len(pts):
    times = np.sort(np.array(pts, np.int64))
    if len(pts) > 1:
      fps = float((len(pts) - 1) / ((times[-1] - times[0]) * stream.time_base))
  if not keys or times is None or not _are_shown_at(pts, dts, container, stream):
    return Timeline(len(pts), fps, None)
  key_times = np.array([pts[key] for key in keys], np.int64)
  order, seeks = np.argsort(key_times), key_times
  if container.format.name in _SEEKING_BY_DECODING_TIME and None not in dts:
    # One less: a seek should not land in the packet that has the end of the last
    # picture and the beginning of this one.
    seeks = np.array([dts[key] - 1 for key in keys], np.int64)
  return Timeline(
    len(pts),
    fps,
    times,
    keys=key_times[order],
    seeks=seeks[order],
    sizes=sizes,
    first_key=int(np.searchsorted(times, pts[keys[0]])),
  )


def _are_shown_at(pts: Sequence, dts: Sequence, container, stream) -> bool:
  """Tells whether pictures come out of the decoder with these time stamps, in order."""
  if container.format.flags & av.format.Flags.no_timestamps.value:
    return False  # made up by the reader of a raw stream
  known = [time for time in dts if time is not None]
  if any(later < earlier for earlier, later in itertools.pairwise(known)):
    return False  # files put behind each other
  # AVI and ASF tell when pictures are decoded. From that, wrong times are made up for
  # pictures that are shown in another order.
  if container.format.name == "avi" and stream.codec_context.name in ("h264", "hevc"):
    return False
  in_order = all(later > earlier for earlier, later in itertools.pairwise(pts))
  return not (in_order and stream.codec_context.reorder_depth)
