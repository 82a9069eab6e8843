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
import threading
from collections.abc import Callable, Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from motion_jax.data import timeline, transcode
from motion_jax.data.timeline import VideoError

__all__ = ["VideoError", "VideoInfo", "VideoReader", "probe", "read_frames"]

Media = bytes | str | os.PathLike

# From version 19 on, PyAV is always lenient with text that is not UTF-8.
_LENIENT = (
  {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_local = threading.local()


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
    with timeline.video_errors():
      self._open()
      try:
        self._timeline = timeline.from_header(self._container, self._stream)
        if self._timeline is None:
          self._index_packets()
      except BaseException:
        self._container.close()
        raise

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

  def read(
    self,
    indices: Sequence[int],
    convert: Callable[[np.ndarray], np.ndarray] = lambda frame: frame,
  ) -> np.ndarray:
    """Decodes frames; arguments, result and errors are those of `read_frames`.

    `convert` is applied to every frame as soon as it is decoded, so that large ones
    need not be in memory together; its result must not be changed later.
    """
    self._convert = convert
    count = self.num_frames
    indices = np.asarray(indices, np.int64)
    if indices.size == 0 or indices.min() < 0 or indices.max() >= count:
      raise IndexError(f"frames {indices.tolist()} of a video of {count} frames")
    with timeline.video_errors():
      return self._read(indices)

  def frames(self, short_side: int | None = None) -> Iterator[np.ndarray]:
    """Decodes the whole video once, in order.

    Args:
      short_side: largest length of the shorter side in pixels; larger frames are
        reduced to it by averaging, and sides become even. None keeps the size.

    Yields:
      `num_frames` times [H, W, 3] uint8, RGB.

    Raises:
      VideoError: where the file is damaged, after the frames before the damage.
    """
    with timeline.video_errors():
      if self._timeline.from_header:
        self._index_packets()
      elif not self._fresh:
        self._reopen()
      self._fresh = False
      yield from self._in_order(short_side)

  def _in_order(self, short_side: int | None) -> Iterator[np.ndarray]:
    count = self.num_frames
    times = range(count)
    if self._timeline.pts is not None:
      times = self._timeline.times(np.arange(count)).tolist()
    shown = 0
    for number, frame in enumerate(self._container.decode(self._stream)):
      pts = number if self._timeline.pts is None else frame.pts
      image = None
      while shown < count and times[shown] == pts:
        image = self._to_rgb(frame, short_side) if image is None else image
        yield image
        shown += 1
      if shown < count and pts is not None and times[shown] < pts:
        break
    if shown < count:
      raise VideoError(f"only {shown} of {count} frames can be decoded")

  def _read(self, indices: np.ndarray) -> np.ndarray:
    if self._timeline.pts is not None:
      targets = self._timeline.times(indices)
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
    self._container = av.open(media, **_LENIENT)
    try:
      if not self._container.streams.video:
        raise VideoError("no video stream")
      self._stream = self._container.streams.video[0]
      if self._stream.codec_context is None:
        raise VideoError("the codec of the video is not known")
      self._stream.thread_type = "NONE"
    except BaseException:
      self._container.close()
      raise
    self._fresh = True

  def _reopen(self) -> None:
    self._container.close()
    self._open()

  def _index_packets(self) -> None:
    self._timeline = timeline.from_packets(self._container, self._stream)
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
    whole, missing, unsent = None, len(run), len(run)
    for packet in self._container.demux(self._stream):
      is_wanted = packet.pts in wanted
      unsent -= is_wanted
      if whole is not is_wanted:
        # Pictures that no other one refers to are decoded only when asked for.
        whole = is_wanted
        context.skip_frame = "DEFAULT" if whole else "NONREF"
      for frame in _decode(context, packet, unsent == 0):
        if frame.pts in wanted and frame.pts not in found:
          found[frame.pts] = self._convert(self._to_rgb(frame))
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
        found[number] = self._convert(self._to_rgb(frame))
        if len(found) == len(wanted):
          return found
    return None

  def _to_rgb(self, frame: av.VideoFrame, short_side: int | None = None) -> np.ndarray:
    if not hasattr(_local, "reformatter"):
      _local.reformatter = VideoReformatter()  # keeps its tables between videos
    aspect = self._stream.sample_aspect_ratio
    width = max(1, round(frame.width * aspect)) if aspect else frame.width
    height = frame.height
    if short_side is not None:
      height, width = transcode.reduced_size(height, width, short_side)
    rgb = _local.reformatter.reformat(
      frame,
      width=width,
      height=height,
      format="rgb24",
      interpolation=None if short_side is None else "AREA",
      threads=1,
    )
    image = rgb.to_ndarray()
    if frame.rotation:
      image = np.rot90(image, k=round(frame.rotation / 90))
    return image


def _decode(context, packet, drain: bool) -> list[av.VideoFrame]:
  """Decodes a packet; `drain` also hands out what the decoder holds back."""
  frames = context.decode(packet)
  if drain and packet.size:
    frames += context.decode(None)
  return frames
