"""Turns a medium into what a data set stores: a short-GOP mp4, or JPEG frames."""

from __future__ import annotations

import contextlib
import errno
import fractions
import functools
import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from motion_jax.data import folders, media, pixels, storage
from motion_jax.data.builders.plan import Item
from motion_jax.data.sources import DecodeError, Record, StorageFault
from motion_jax.data.video import VideoReader

KEY_EVERY = 12  # frames between key frames; bounds what a random access decodes


def encode(item: Item, layout: str, short_side: int) -> tuple[dict, str]:
  """Decodes a medium and encodes it as a data set stores it.

  Args:
    item: what to encode.
    layout: "video", "frames" or "image".
    short_side: largest length of the shorter side in pixels; images keep theirs.

  Returns:
    The features of the record; and what is wrong with the medium, '' if nothing is.

  Raises:
    DecodeError: if nothing of it can be decoded.
    OSError: if it cannot be read: its storage is at fault, not the medium.
  """
  try:
    try:
      example, damage = _encode(item, layout, short_side)
    except DecodeError:
      _check_storage(item)
      raise
    if damage:
      _check_storage(item)
  except StorageFault as fault:
    raise OSError(errno.EIO, fault.reason, fault.path) from fault
  return example, damage


def _check_storage(item):
  """What storage does not give is no damage. (Archives have raised by themselves.)"""
  if item.member:
    return
  record = Record(item.id, "video", item.path)
  if os.path.isdir(item.path):
    record = Record(item.id, "frames", folders.frame_paths(pathlib.Path(item.path)))
  storage.check_files(record)


def _encode(item, layout, short_side):
  if not os.path.isdir(item.path):
    with open(item.path, "rb") as file:
      file.read(1)
  if layout == "image":
    stored, damage = _read(item), ""
    shape = 1, 0.0, *media.decode_image(stored).shape[:2]
  else:
    with _opened(item, short_side) as (frames, fps):
      intact = _Intact(frames)
      stored = _encoded(intact, fps, layout)
    damage, shape = intact.damage, (intact.count, fps, *intact.size)
  size = zip(("num_frames", "fps", "height", "width"), shape, strict=True)
  return {layout: stored, "id": item.id, "label": item.label, **dict(size)}, damage


@contextlib.contextmanager
def _opened(
  item: Item, short_side: int
) -> Iterator[tuple[Iterator[np.ndarray], float]]:
  """The frames of a video, or of some seconds of it, and their rate."""
  if os.path.isdir(item.path):
    record = Record(item.id, "frames", folders.frame_paths(pathlib.Path(item.path)))
    yield media.whole_video(record, short_side), media.FRAMES_FPS
    return
  content = _read(item) if item.member else item.path
  if not item.end:
    with VideoReader(content) as reader:
      yield reader.frames(short_side), reader.fps
    return
  reader = _open_once(content, os.stat(item.path).st_mtime_ns)
  first, last = (round(time * reader.fps) for time in (item.start, item.end))
  if reader.num_frames <= last - first + reader.fps:  # cut already, to the second
    yield reader.frames(short_side), reader.fps
    return
  first, last = max(0, first), min(last, reader.num_frames)
  if first >= last:
    raise DecodeError(
      f"ends at {reader.num_frames / reader.fps:.1f} s, before {item.start} s"
    )

  def reduce(frame):
    return pixels.reduce(frame, pixels.reduced_size(*frame.shape[:2], short_side))

  yield iter(reader.read(range(first, last), reduce)), reader.fps


@functools.lru_cache(maxsize=4)
def _archive(path: str, version: int) -> zipfile.ZipFile:
  """Opens an archive once: its directory can have a quarter of a million entries."""
  del version  # a file that has changed is opened anew
  return zipfile.ZipFile(path)


@functools.lru_cache(maxsize=1)
def _open_once(content: bytes | str, version: int) -> VideoReader:
  """Opens a video; many ranges of one long file come one after the other."""
  del version  # a file that has changed is opened anew
  return VideoReader(content)


def _encoded(frames: _Intact, fps: float, layout: str) -> bytes | list[bytes]:
  try:
    if layout == "video":
      return encode_mp4(frames, fps, cabac=False)
    return [encode_jpeg(frame) for frame in frames]
  except (av.FFmpegError, cv2.error, ValueError, ArithmeticError) as error:
    # Of an impossible size or rate, which a damaged header can tell.
    raise DecodeError(f"cannot be encoded: {error}") from error


class _Intact:
  """The frames of a video up to where it is damaged, if it is."""

  def __init__(self, frames: Iterator[np.ndarray]):
    self._frames = frames
    self.count, self.size, self.damage = 0, (0, 0), ""

  def __iter__(self) -> Iterator[np.ndarray]:
    try:
      for frame in self._frames:
        self.count += 1
        self.size = frame.shape[:2]
        yield frame
    except DecodeError as error:
      if not self.count:
        raise
      self.damage = f"{error}; kept the first {self.count} frames"


def _read(item: Item) -> bytes:
  try:
    if item.member:
      return _archive(item.path, os.stat(item.path).st_mtime_ns).read(item.member)
    return pathlib.Path(item.path).read_bytes()
  except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
    raise DecodeError(str(error)) from error
  except OSError as error:
    if error.errno != errno.EINVAL:
      raise
    raise DecodeError(str(error)) from error  # a place before the archive's start


def encode_mp4(
  frames, fps: float, *, crf: int = 20, preset: str = "veryfast", cabac: bool = True
) -> bytes:
  """Encodes frames as H.264 in mp4, with a key frame at least every 12 frames.

  Args:
    frames: iterable of [H, W, 3] uint8 RGB, H and W even and all the same.
    fps: frames per second.
    crf: x264 quality, 0 (lossless) to 51.
    preset: x264 speed preset.
    cabac: x264's better entropy coding. Without it a file is a tenth larger and decoded
      in two thirds of the time; the pictures are as good.

  Returns:
    The bytes of the mp4 file; the same for the same frames and library version.
  """
  buffer = io.BytesIO()
  rate = fractions.Fraction(fps).limit_denominator(1001)
  reformatter = VideoReformatter()
  with av.open(buffer, "w", format="mp4") as container:
    stream = None
    for image in frames:
      if stream is None:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_type = "NONE"
        stream.options = {
          "crf": str(crf),
          "preset": preset,
          "g": str(KEY_EVERY),
          "threads": "1",
          "x264-params": f"cabac={int(cabac)}",
        }
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      frame = reformatter.reformat(frame, format="yuv420p", threads=1)
      container.mux(stream.encode(frame))
    if stream is None:
      raise ValueError("no frames to encode")
    container.mux(stream.encode(None))
  return buffer.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
  """Encodes an [H, W, 3] uint8 RGB image as JPEG bytes."""
  flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
  return cv2.imencode(".jpg", image[..., ::-1], flags)[1].tobytes()
