"""Encodes records into a staging folder, one file each, so that work is not redone."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator

import av
import cv2
import numpy as np

from motion_jax.data import folders, media, transcode, video
from motion_jax.data.builders.plan import Item

_FRAMES_FPS = 30.0  # of folders of frames, whose rate nothing tells


def stage(item: Item, layout: str, short_side: int, folder: str) -> str:
  """Encodes one record unless that has been done.

  Args:
    item: what to encode.
    layout: "video", "frames" or "image".
    short_side: largest length of the shorter side in pixels; images keep theirs.
    folder: where the file goes; it appears only when it is complete.

  Returns:
    Empty if all is well, otherwise what is wrong with the medium.

  Raises:
    OSError: if the file cannot be written.
  """
  path = staged_path(item, folder)
  if path.exists():
    return _read_header(path)["damage"]
  try:
    header, blobs = _encode(item, layout, short_side)
  except (video.VideoError, media.DecodeError) as error:
    return str(error)
  header["sizes"] = [len(blob) for blob in blobs]
  draft = path.with_suffix(f".{os.getpid()}")
  with draft.open("wb") as file:
    file.write(json.dumps(header).encode() + b"\n")
    for blob in blobs:
      file.write(blob)
  os.replace(draft, path)
  return header["damage"]


def load(item: Item, layout: str, folder: str) -> dict:
  """Returns the features of a staged record."""
  with staged_path(item, folder).open("rb") as file:
    header = json.loads(file.readline())
    blobs = [file.read(size) for size in header["sizes"]]
  return {
    layout: blobs if layout == "frames" else blobs[0],
    "id": item.id,
    "label": item.label,
    **{key: header[key] for key in ("num_frames", "fps", "height", "width")},
  }


def staged_path(item: Item, folder: str) -> pathlib.Path:
  """Returns where a record is staged; another version of its file goes elsewhere."""
  status = os.stat(item.path)
  key = f"{item.id}\n{item.path}\n{item.member}\n{status.st_size}\n{status.st_mtime_ns}"
  if item.end:
    key += f"\n{item.start}\n{item.end}"
  digest = hashlib.blake2b(os.fsencode(key), digest_size=16).hexdigest()
  return pathlib.Path(folder, digest)


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
      with zipfile.ZipFile(item.path) as archive:
        return archive.read(item.member)
    return pathlib.Path(item.path).read_bytes()
  except (OSError, zipfile.BadZipFile) as error:
    raise media.DecodeError(str(error)) from error


def _read_header(path: pathlib.Path) -> dict:
  with path.open("rb") as file:
    return json.loads(file.readline())
