"""Decodes the media of records, resizes them, and lays them out."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np

from motion_jax.data import pixels
from motion_jax.data.sources import DecodeError, Record
from motion_jax.data.video import VideoReader

FRAMES_FPS = 30.0  # of images and frame folders, whose rate nothing tells
_MAX_SCRATCH = 2**23  # floats that a thread keeps
_local = threading.local()
_MAX_PIXELS = 2**25  # of a resized frame; 400 MB as float32


def set_up_opencv() -> None:
  """Lets OpenCV use no threads and print nothing, in the whole process.

  Records are decoded in parallel, not pixels, and bad files are reported once, by
  `BadFiles`. For the processes of our commands: a program that imports us decides
  itself what its OpenCV does, and decodes in four threads at 0.95 (two threads of
  OpenCV) to 0.78 (eight) of the rate on two cores unless it calls this, too.
  """
  cv2.setNumThreads(0)
  cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_record(
  record: Record,
  choose: Callable[[int, float], Sequence[int]],
  short_side: int | None = None,
) -> Sequence:
  """Decodes frames of a video, of a sequence of images, or of a single image.

  Args:
    record: what to decode.
    choose: is called with the number of frames and their rate, and returns the
      numbers of the frames that are wanted.
    short_side: to which frames are resized, and truncated, as they are decoded: of a
      large video, never more than one frame is in memory. None keeps their size.

  Returns:
    A sequence of [H, W, 3] uint8, RGB.

  Raises:
    DecodeError: if one of the frames cannot be decoded.
  """
  parts = read_parts(record, lambda count, fps: [choose(count, fps)], short_side)
  (frames,) = parts
  return frames


def read_parts(
  record: Record,
  choose: Callable[[int, float], Iterable[Sequence[int]]],
  short_side: int | None = None,
) -> Iterator[Sequence]:
  """Decodes one group of frames after the other; for long videos.

  Args:
    record, short_side: as for `read_record`.
    choose: returns the numbers of the frames of each group.

  Yields:
    What `read_record` returns, for each group.

  Raises:
    DecodeError: at the first frame that cannot be decoded.
  """

  def convert(frame):
    if short_side is None:
      return frame
    return resize_short_side(frame, short_side).astype(np.uint8, copy=False)

  if record.kind == "video":
    with VideoReader(record.media) as reader:
      for indices in choose(reader.num_frames, reader.fps):
        yield reader.read(indices, convert)
    return
  media = _images(record)
  for indices in choose(len(media), record.fps or FRAMES_FPS):
    wanted = set(map(int, indices))
    frames = {index: convert(decode_image(media[index])) for index in wanted}
    yield [frames[int(index)] for index in indices]


def whole_video(record: Record, short_side: int) -> Iterator[np.ndarray]:
  """Decodes all frames of a record, in order.

  Args:
    record: a video, a sequence of images, or one image.
    short_side: largest length of the shorter side in pixels; larger frames are reduced
      to it by averaging areas, and sides become even. The first image of a sequence
      sets the size.

  Yields:
    [H, W, 3] uint8, RGB, all of one size.

  Raises:
    DecodeError: at the first frame that cannot be decoded.
  """
  if record.kind == "video":
    with VideoReader(record.media) as reader:
      yield from reader.frames(short_side)
    return
  size = None
  for image in map(decode_image, _images(record)):
    size = size or pixels.reduced_size(*image.shape[:2], short_side)
    yield pixels.reduce(image, size)


def _images(record: Record) -> Sequence[bytes | os.PathLike]:
  images = (record.media,) if record.kind == "image" else record.media
  if not images:
    raise DecodeError("a folder without frames")
  return images


def decode_image(media: bytes | os.PathLike) -> np.ndarray:
  """Decodes an image file or its bytes, upright.

  Returns:
    [H, W, 3] uint8, RGB.

  Raises:
    DecodeError: if it cannot be read or is not an image.
  """
  try:
    if not isinstance(media, bytes):
      with open(media, "rb") as file:
        media = file.read()
    image = None
    if media:
      image = cv2.imdecode(np.frombuffer(media, np.uint8), cv2.IMREAD_COLOR)
  except (OSError, cv2.error) as error:
    raise DecodeError(str(error)) from error
  if image is None:
    raise DecodeError("not an image, or an image that is damaged")
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
  """Returns (height, width) after the shorter side becomes `short_side`.

  The longer side is truncated, as in the official MoSI code: int(short_side / short *
  long), evaluated from the left in double precision.
  """
  if height <= width:
    return short_side, int(short_side / height * width)
  return int(short_side / width * height), short_side


def resize_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
  """Resizes like MoSI: float32, bilinear, half-pixel centres, no antialiasing.

  Args:
    image: [H, W, 3] uint8.
    short_side: new length of the shorter side in pixels.

  Returns:
    [H', W', 3] float32 in [0, 255], valid until the next call in this thread; uint8
    and unchanged if it has that size already.

  Raises:
    DecodeError: if the result would not fit into memory.
  """
  height, width = resized_shape(*image.shape[:2], short_side)
  if height * width > _MAX_PIXELS:
    found = f"{image.shape[0]}x{image.shape[1]}"
    raise DecodeError(f"{found} is too long and thin to resize to {height}x{width}")
  if (height, width) == image.shape[:2]:
    return image
  source = _scratch("source", image.shape)
  np.copyto(source, image)
  target = _scratch("target", (height, width, 3))
  return cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)


def _scratch(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns memory of this thread; fresh megabytes cost more than resizing."""
  size = math.prod(shape)
  if size > _MAX_SCRATCH:
    return np.empty(shape, np.float32)
  memory = getattr(_local, name, None)
  if memory is None or memory.size < size:
    memory = np.empty(size, np.float32)
    setattr(_local, name, memory)
  return memory[:size].reshape(shape)


def place(
  frame: np.ndarray, canvas: np.ndarray, places: Sequence[float], *, turn: bool = True
) -> tuple:
  """Puts a frame at the top left of a canvas; what does not fit is cut off.

  Args:
    frame: [H, W, C] uint8, or float32 in [0, 256), which is truncated.
    canvas: [H', W', C] uint8, written to.
    places: which window of a larger frame is kept, vertically and horizontally;
      uniform random numbers in [0, 1).
    turn: lay an upright frame into a wide canvas, or a wide one into an upright canvas,
      with its rows as columns; `ops.crops.is_turned` tells so of what is returned.

  Returns:
    (height, width) of the part of the frame that is there.
  """
  (rows, columns), (height, width) = canvas.shape[:2], frame.shape[:2]
  if turn and (rows - columns) * (height - width) < 0:
    turned = frame.swapaxes(0, 1)
    return place(turned, canvas, places[::-1], turn=False)[::-1]
  room = canvas.shape[:2]
  top, left = (
    int(fraction * (max(0, have - fits) + 1))
    for fraction, have, fits in zip(places, frame.shape[:2], room, strict=True)
  )
  frame = frame[top : top + room[0], left : left + room[1]]
  height, width = frame.shape[:2]
  np.copyto(canvas[:height, :width], frame, casting="unsafe")
  return height, width
