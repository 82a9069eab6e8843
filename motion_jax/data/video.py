"""Decodes chosen frames of a video file, found by time stamp and not by counting.

Frame i of a video of n frames is the picture shown at `first + i * (last - first) /
(n - 1)`, where `first` and `last` are the time stamps of the first and last picture.
For a constant rate that is the i-th picture; for a variable rate the pictures are
sampled evenly in time. Pictures come out upright, with square pixels, as RGB.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import threading
from collections.abc import Iterable, Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter

Media = bytes | str | os.PathLike

_SEEK_GAP = 8  # frames; rolling forward over fewer is cheaper than a seek
_DEFAULT_FPS = 25.0  # of streams that state no rate
_local = threading.local()


class VideoError(Exception):
  """A video cannot be opened, or a frame that it promises cannot be decoded."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
  """What a video holds: frames, frames per second, upright size in square pixels."""

  num_frames: int
  fps: float
  height: int
  width: int


def probe(media: Media) -> VideoInfo:
  """Reads the number of frames, the rate and the upright size; decodes one frame.

  Args:
    media: a path, or the bytes of a video file.

  Returns:
    The video's `VideoInfo`.

  Raises:
    VideoError: if the file cannot be opened or its first frame cannot be decoded.
  """
  with VideoReader(media) as reader:
    height, width = reader.read([0]).shape[1:3]
    return VideoInfo(reader.num_frames, reader.fps, height, width)


def read_frames(media: Media, indices: Sequence[int]) -> np.ndarray:
  """Decodes the frames with the given numbers, in the given order.

  Args:
    media: a path, or the bytes of a video file.
    indices: [T] frame numbers in [0, num_frames), repeats allowed.

  Returns:
    [T, H, W, 3] uint8, RGB.

  Raises:
    VideoError: if the file cannot be opened or one of the frames cannot be decoded.
    IndexError: if a number is out of range.
  """
  with VideoReader(media) as reader:
    return reader.read(indices)


class VideoReader:
  """An open video; a context manager that gives its length, its rate and frames."""

  def __init__(self, media: Media):
    """Opens a video.

    Args:
      media: a path, or the bytes of a video file.

    Raises:
      VideoError: if the file cannot be opened or holds no video frames.
    """
    self._media = media
    try:
      self._open()
      try:
        self._timeline = _from_header(self._container, self._stream)
        if self._timeline is None:
          self._index_packets()
      except BaseException:
        self._container.close()
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
      raise VideoError(_reason(error)) from error

  def __enter__(self) -> VideoReader:
    return self

  def __exit__(self, *exc) -> None:
    self._container.close()

  @property
  def num_frames(self) -> int:
    return self._timeline.count

  @property
  def fps(self) -> float:
    """Average frames per second."""
    return self._timeline.fps

  def read(self, indices: Sequence[int]) -> np.ndarray:
    """Decodes frames; arguments, result and errors are those of `read_frames`."""
    count = self.num_frames
    indices = np.asarray(indices, np.int64)
    if indices.size == 0 or indices.min() < 0 or indices.max() >= count:
      raise IndexError(f"frames {indices.tolist()} of a video of {count} frames")
    try:
      return self._read(indices)
    except (av.FFmpegError, OSError, ValueError) as error:
      raise VideoError(_reason(error)) from error

  def _read(self, indices: np.ndarray) -> np.ndarray:
    if self._timeline.pts is not None:
      targets = self._timeline.pts[self._timeline.ranks(indices)]
      found = self._decode_times(np.unique(targets))
      if found is None and self._timeline.from_header:
        self._reopen()
        self._index_packets()
        if self.num_frames <= indices.max():
          raise VideoError(f"only {self.num_frames} frames can be decoded")
        return self._read(indices)
    else:
      targets = indices
      found = self._decode_counting(np.unique(targets))
    if found is None:
      raise VideoError("a frame is missing: the file is damaged or cut off")
    return np.stack([found[int(target)] for target in targets])

  def _open(self) -> None:
    media = self._media
    if isinstance(media, bytes):
      media = io.BytesIO(media)
    else:
      media = os.fspath(media)
    self._container = av.open(media, metadata_errors="ignore")
    if not self._container.streams.video:
      self._container.close()
      raise VideoError("no video stream")
    self._stream = self._container.streams.video[0]
    self._stream.thread_type = "NONE"
    self._fresh = True

  def _reopen(self) -> None:
    self._container.close()
    self._open()

  def _index_packets(self) -> None:
    self._timeline = _from_packets(self._container, self._stream)
    self._reopen()

  def _decode_times(self, targets: np.ndarray) -> dict[int, np.ndarray] | None:
    """Decodes the pictures with the sorted time stamps; None if one is missing."""
    found = {}
    try:
      for run, seek in self._timeline.runs(targets, self._fresh):
        if seek:
          self._container.seek(run[0], stream=self._stream)
        self._decode_run(run, found)
    except av.FFmpegError:
      if not seek:
        raise
    if len(found) < len(targets):
      # Seeks can land behind the picture, or fail: roll forward from the start.
      self._reopen()
      found = {}
      self._decode_run(targets.tolist(), found)
    return found if len(found) == len(targets) else None

  def _decode_run(self, run: list[int], found: dict[int, np.ndarray]) -> None:
    """Rolls forward until the pictures of `run` are in `found`, or passed by."""
    self._fresh = False
    context = self._stream.codec_context
    wanted = set(run)
    missing = len(run)
    unsent = len(run)
    for packet in self._container.demux(self._stream):
      is_wanted = packet.pts in wanted
      # Pictures that no other one refers to are decoded only when asked for.
      context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
      unsent -= is_wanted
      for frame in _decode(context, packet, unsent == 0):
        if frame.pts in wanted and frame.pts not in found:
          found[frame.pts] = self._to_rgb(frame)
          missing -= 1
        if missing == 0 or (frame.pts is not None and frame.pts > run[-1]):
          return

  def _decode_counting(self, targets: np.ndarray) -> dict[int, np.ndarray] | None:
    """Decodes from the start and counts, for streams without usable time stamps."""
    if not self._fresh:
      self._reopen()
    self._fresh = False
    wanted = set(targets.tolist())
    found = {}
    for number, frame in enumerate(self._container.decode(self._stream)):
      if number in wanted:
        found[number] = self._to_rgb(frame)
        if len(found) == len(wanted):
          return found
    return None

  def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
    if not hasattr(_local, "reformatter"):
      _local.reformatter = VideoReformatter()  # keeps its tables between videos
    aspect = self._stream.sample_aspect_ratio
    width = max(1, round(frame.width * aspect)) if aspect else frame.width
    rgb = _local.reformatter.reformat(frame, width=width, format="rgb24", threads=1)
    image = rgb.to_ndarray()
    if frame.rotation:
      image = np.rot90(image, k=round(frame.rotation / 90))
    return image


@dataclasses.dataclass(frozen=True)
class _Timeline:
  """The pictures of a video in the order in which they are shown."""

  count: int
  fps: float
  pts: np.ndarray | None = None  # [count] sorted time stamps; None: unknown
  keys: np.ndarray | None = None  # sorted time stamps of the key frames
  from_header: bool = False

  def ranks(self, indices: np.ndarray) -> np.ndarray:
    """Returns which picture is shown for each frame number."""
    times = np.linspace(self.pts[0], self.pts[-1], self.count)
    if np.abs(self.pts - times).max() <= 1:  # constant rate, up to rounding
      return indices
    return np.searchsorted(self.pts, times[indices] + 0.5, side="right") - 1

  def runs(self, targets: np.ndarray, fresh: bool) -> Iterable[tuple[list, bool]]:
    """Splits sorted targets where a seek saves decoding; yields (run, seek first)."""
    position = self.pts[0] if fresh else None
    run, seek = [], False
    for target in targets.tolist():
      if position is None or self._worth_a_seek(position, target):
        if run:
          yield run, seek
        run, seek = [], True
      run.append(target)
      position = target
    yield run, seek

  def _worth_a_seek(self, position: int, target: int) -> bool:
    key = self.keys[max(0, np.searchsorted(self.keys, target, side="right") - 1)]
    skipped = np.searchsorted(self.pts, [position, key])
    return skipped[1] - skipped[0] > _SEEK_GAP


def _from_header(container, stream) -> _Timeline | None:
  """Reads the time line from an mp4 index, if it is complete and of constant rate."""
  if "mp4" not in container.format.name or stream.start_time is None:
    return None
  entries = stream.index_entries
  count = len(entries)
  if count < 2 or count != stream.frames:
    return None
  times = np.fromiter((entry.timestamp for entry in entries), np.int64, count)
  step = int(times[1] - times[0])
  if step < 1 or (np.diff(times) != step).any():
    return None
  is_key = np.fromiter((entry.is_keyframe for entry in entries), bool, count)
  pts = stream.start_time + step * np.arange(count)
  return _Timeline(count, float(1 / (step * stream.time_base)), pts, pts[is_key], True)


def _from_packets(container, stream) -> _Timeline:
  """Reads the time line from the packets; decodes nothing."""
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
    return _Timeline(len(pts), fps)
  pts = np.sort(np.array(pts, np.int64))
  if len(pts) > 1:
    fps = float((len(pts) - 1) / ((pts[-1] - pts[0]) * stream.time_base))
  return _Timeline(len(pts), fps, pts, np.sort(np.array(keys, np.int64)))


def _decode(context, packet, drain: bool) -> Iterable[av.VideoFrame]:
  """Decodes a packet; `drain` also hands out what the decoder holds back."""
  yield from context.decode(packet)
  if drain and packet.size:
    yield from context.decode(None)


def _reason(error: Exception) -> str:
  if isinstance(error, av.FFmpegError):
    return error.strerror or type(error).__name__
  return str(error) or type(error).__name__


def is_path(media: object) -> bool:
  """Tells whether media is a path on disk (else it holds the bytes themselves)."""
  return isinstance(media, str | pathlib.PurePath)
