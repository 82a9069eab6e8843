"""Samplers: what a batch takes from a record.

A sampler is called with a record and a NumPy generator and returns a dict of arrays of
fixed shapes; `empty()` returns the same shapes as zeros, for records that cannot be
decoded. Samplers are small, stateless and picklable.
"""

from __future__ import annotations

import os
from typing import Protocol

import cv2
import numpy as np

from motion_jax.config import UserError
from motion_jax.data import video
from motion_jax.data.sources import Record

cv2.setNumThreads(0)  # records are decoded in parallel, not pixels

_MAX_PIXELS = 2**25  # of a resized frame; 400 MB as float32


class DecodeError(Exception):
  """The media of a record cannot be decoded."""


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
        top left. A longer frame is cut to a random window.
    """
    if short_side < 1 or min(canvas) < 1:
      raise UserError(
        f"short_side {short_side} and canvas {tuple(canvas)} must be at least 1 pixel"
      )
    self.short_side = int(short_side)
    self.canvas = (int(canvas[0]), int(canvas[1]))

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes, resizes and places one frame.

    Returns:
      image: [canvas height, canvas width, 3] uint8, zero outside the frame.
      extent: [2] int32, height and width of the frame in it.

    Raises:
      DecodeError: if the frame cannot be decoded.
    """
    draw, *places = rng.random(3)
    frame = random_frame(record, draw)
    frame = resize_short_side(frame, self.short_side)
    top, left = (
      int(place * (max(0, have - room) + 1))
      for place, have, room in zip(places, frame.shape[:2], self.canvas, strict=True)
    )
    frame = frame[top : top + self.canvas[0], left : left + self.canvas[1]]
    out = self.empty()
    height, width = frame.shape[:2]
    np.copyto(out["image"][:height, :width], frame, casting="unsafe")  # truncates
    out["extent"][:] = height, width
    return out

  def empty(self) -> dict:
    return {
      "image": np.zeros((*self.canvas, 3), np.uint8),
      "extent": np.zeros(2, np.int32),
    }


def random_frame(record: Record, draw: float) -> np.ndarray:
  """Decodes the frame at a uniform random position.

  Args:
    record: video, image or frames.
    draw: uniform random number in [0, 1).

  Returns:
    [H, W, 3] uint8, RGB.

  Raises:
    DecodeError: if the frame cannot be decoded.
  """
  if record.kind == "image":
    return decode_image(record.media)
  if record.kind == "frames":
    if not record.media:
      raise DecodeError("a folder without frames")
    return decode_image(record.media[int(draw * len(record.media))])
  try:
    with video.VideoReader(record.media) as reader:
      return reader.read([int(draw * reader.num_frames)])[0]
  except video.VideoError as error:
    raise DecodeError(str(error)) from error


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
      image = cv2.imdecode(np.frombuffer(media, np.uint8), cv2.IMREAD_COLOR_RGB)
  except (OSError, cv2.error) as error:
    raise DecodeError(str(error)) from error
  if image is None:
    raise DecodeError("not an image, or an image that is damaged")
  return image


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
    [H', W', 3] float32 in [0, 255]; uint8 and unchanged if it has that size already.

  Raises:
    DecodeError: if the result would not fit into memory.
  """
  height, width = resized_shape(*image.shape[:2], short_side)
  if height * width > _MAX_PIXELS:
    found = f"{image.shape[0]}x{image.shape[1]}"
    raise DecodeError(f"{found} is too long and thin to resize to {height}x{width}")
  if (height, width) == image.shape[:2]:
    return image
  return cv2.resize(
    image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
  )


def diagnose(record: Record) -> str:
  """Decodes a bad record again and returns the reason why it is bad."""
  try:
    for draw in (0.0, 0.5, 1 - 1e-9):
      random_frame(record, draw)
  except (DecodeError, OSError, MemoryError) as error:
    return " ".join(str(error).split()) or type(error).__name__
  return "some of its frames cannot be decoded"
