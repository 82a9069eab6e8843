"""Turns a medium into what a data set stores: a short-GOP mp4, or JPEG frames."""

from __future__ import annotations

import errno
import functools
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator

import av
import cv2
import numpy as np

from motion_jax.data import folders, media, transcode, video
from motion_jax.data.builders.plan import Item

_FRAMES_FPS = 30.0  # of folders of frames, whose rate nothing tells


def encode(item: Item, layout: str, short_side: int) -> tuple[dict, str]:
  """Decodes a medium and encodes it as a data set stores it.

  Args:
    item: what to encode.
    layout: "video", "frames" or "image".
    short_side: largest length of the shorter side in pixels; images keep theirs.

  Returns:
    The features of the record; and what is wrong with the medium, '' if nothing is.

  Raises:
    VideoError, DecodeError: if nothing of it can be decoded.
    OSError: if it cannot be read: its storage is at fault, not the medium.
  """
  if not os.path.isdir(item.path):
    with open(item.path, "rb") as file:
      file.read(1)
  header, blobs = _encode(item, layout, short_side)
  damage = header.pop("damage")
  stored = blobs if layout == "frames" else blobs[0]
  return {layout: stored, "id": item.id, "label": item.label, **header}, damage


def _encode(item: Item, layout: str, short_side: int) -> tuple[dict, list[bytes]]:
  if layout == "image":
    data = _read(item)
    height, width = media.decode_image(data).shape[:2]
    size = {"num_frames": 1, "fps": 0.0, "height": height, "width": width}
    return {**size, "damage": ""}, [data]
  if os.path.isdir(item.path):
    fps, frames = _FRAMES_FPS, _Intact(_folder_frames(item.path, short_side))
    return _encode_frames(frames, fps, layout)
  if item.end:
    return _encode_range(item, layout, short_side)
  with video.VideoReader(_read(item) if item.member else item.path) as reader:
    return _encode_frames(_Intact(reader.frames(short_side)), reader.fps, layout)


def _encode_range(item: Item, layout: str, short_side: int) -> tuple[dict, list[bytes]]:
  """Encodes some seconds of a video, or all of it where it is no longer than that."""
  content = _read(item) if item.member else item.path
  reader = _open_once(content, os.stat(item.path).st_mtime_ns)
  first, last = (round(time * reader.fps) for time in (item.start, item.end))
  if reader.num_frames <= last - first + reader.fps:  # cut already, to the second
    return _encode_frames(_Intact(reader.frames(short_side)), reader.fps, layout)
  first, last = max(0, first), min(last, reader.num_frames)
  if first >= last:
    raise media.DecodeError(
      f"ends at {reader.num_frames / reader.fps:.1f} s, before {item.start} s"
    )

  def reduce(frame):
    return transcode.reduce(frame, transcode.reduced_size(*frame.shape[:2], short_side))

  frames = reader.read(range(first, last), reduce)
  return _encode_frames(_Intact(iter(frames)), reader.fps, layout)


@functools.lru_cache(maxsize=4)
def _archive(path: str, version: int) -> zipfile.ZipFile:
  """Opens an archive once: its directory can have a quarter of a million entries."""
  del version  # a file that has changed is opened anew
  return zipfile.ZipFile(path)


@functools.lru_cache(maxsize=1)
def _open_once(content: bytes | str, version: int) -> video.VideoReader:
  """Opens a video; many ranges of one long file come one after the other."""
  del version  # a file that has changed is opened anew
  return video.VideoReader(content)


def _encode_frames(
  frames: _Intact, fps: float, layout: str
) -> tuple[dict, list[bytes]]:
  try:
    if layout == "video":
      blobs = [transcode.encode_mp4(frames, fps)]
    else:
      blobs = [transcode.encode_jpeg(frame) for frame in frames]
  except (av.FFmpegError, cv2.error, ValueError, ArithmeticError) as error:
    # Of an impossible size or rate, which a damaged header can tell.
    raise media.DecodeError(f"cannot be encoded: {error}") from error
  height, width = frames.size
  size = {"num_frames": frames.count, "fps": fps, "height": height, "width": width}
  return {**size, "damage": frames.damage}, blobs


class _Intact:
  """The frames of a video up to where it is damaged, if it is."""

  def __init__(self, frames: Iterator[np.ndarray]):
    self._frames = frames
    self.count, self.size, self.damage = 0, (0, 0), ""

  def __iter__(self) -> Iterator[np.ndarray]:
    try:
      for frame in self._frames:
        if self.count and frame.shape[:2] != self.size:
          raise media.DecodeError(f"the size becomes {frame.shape[:2]}")
        self.count += 1
        self.size = frame.shape[:2]
        yield frame
    except (video.VideoError, media.DecodeError) as error:
      if not self.count:
        raise
      self.damage = f"{error}; kept the first {self.count} frames"


def _folder_frames(path: str, short_side: int) -> Iterator[np.ndarray]:
  """Decodes a folder of frames; all get the even size of the first."""
  size = None
  for file in folders.frame_paths(pathlib.Path(path)):
    image = media.decode_image(file)
    if size is None:
      size = transcode.reduced_size(*image.shape[:2], short_side)
    yield transcode.reduce(image, size)


def _read(item: Item) -> bytes:
  try:
    if item.member:
      return _archive(item.path, os.stat(item.path).st_mtime_ns).read(item.member)
    return pathlib.Path(item.path).read_bytes()
  except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
    raise media.DecodeError(str(error)) from error
  except OSError as error:
    if error.errno != errno.EINVAL:
      raise
    raise media.DecodeError(str(error)) from error  # a place before the archive's start
