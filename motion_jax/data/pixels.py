"""Makes RGB images of decoded frames: upright, progressive, with square pixels."""

from __future__ import annotations

import fractions
import logging
import threading

import av
import cv2
import numpy as np
from av.video.reformatter import ColorTrc, VideoReformatter

logger = logging.getLogger("motion_jax")

_HIGH_DYNAMIC_RANGE = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_BLOCK = 16  # pixels; combs are looked for in squares of this size
_COMB = 4.0  # grey levels by which a comb exceeds the detail of one field
_COMBED = 0.01  # share of squares with a comb in a picture of two moments
_local = threading.local()
_told = False  # of a video that would need tone mapping


class Converter:
  """Turns the frames of one stream into RGB images of one size.

  Frames of another size than the first are resized to it. Pictures flagged as
  interlaced of which the fields differ lose the second field, whose lines are
  interpolated; all other pictures are taken whole.
  """

  def __init__(self, stream: av.VideoStream, name: str):
    """Reads what the file says of the whole stream.

    Args:
      stream: not yet decoded from.
      name: of the file, for messages.
    """
    context = stream.codec_context
    self._aspect = stream.sample_aspect_ratio
    self._size = (context.height, context.width) if context.width else None
    self._curve = _HIGH_DYNAMIC_RANGE.get(context.color_trc)
    if self._curve:
      _warn_of_range(name, self._curve)

  def agrees_with(self, context: av.VideoCodecContext) -> bool:
    """Tells whether the stream turned out to be what the file said of it.

    Args:
      context: has decoded a frame.
    """
    return (
      self._size == (context.height, context.width)
      and (self._aspect or context.sample_aspect_ratio or 1) == (self._aspect or 1)
      and self._curve == _HIGH_DYNAMIC_RANGE.get(context.color_trc)
    )

  def __call__(self, frame: av.VideoFrame, short_side: int | None = None) -> np.ndarray:
    """Converts a frame.

    Args:
      frame: of the stream.
      short_side: largest length of the shorter side in pixels; larger frames are
        reduced to it by averaging, and sides become even. None keeps the size.

    Returns:
      [H, W, 3] uint8, RGB.
    """
    self._size = self._size or (frame.height, frame.width)
    height, width = self._size
    if self._aspect:
      width = max(1, round(width * self._aspect))
    if short_side is not None:
      height, width = reduced_size(height, width, short_side)
    size = (height, width)
    mode = None if short_side is None else "AREA"
    if not frame.interlaced_frame:
      image = _to_rgb(frame, size, mode)
    elif _is_combed(frame):
      image = _one_field(frame, size)
    else:  # swscale would take the chroma of each field by itself, and smear it
      image = _to_rgb(_filtered(frame, ("setfield", "prog")), size, mode)
    return _upright(image, frame)


def reduced_size(height: int, width: int, short_side: int) -> tuple[int, int]:
  """Returns the even (height, width) whose shorter side is at most `short_side`."""
  scale = min(1.0, short_side / min(height, width))
  return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def reduce(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an [H, W, 3] uint8 image to (height, width) by averaging areas."""
  if image.shape[:2] == size:
    return image
  return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _to_rgb(frame, size: tuple[int, int], mode: str | None) -> np.ndarray:
  if not hasattr(_local, "reformatter"):
    _local.reformatter = VideoReformatter()  # keeps its tables between videos
  rgb = _local.reformatter.reformat(
    frame,
    width=size[1],
    height=size[0],
    format="rgb24",
    interpolation=mode,
    threads=1,
  )
  return rgb.to_ndarray()


def _is_combed(frame) -> bool:
  """Tells whether neighbouring lines differ more than those of one field do."""
  gray = _filtered(frame, ("setfield", "prog")).to_ndarray(format="gray")
  rows, columns = (gray.shape[0] - 4) // _BLOCK, gray.shape[1] // _BLOCK
  if not rows or not columns:
    return False
  gray = gray[: rows * _BLOCK + 4, : columns * _BLOCK].astype(np.int16)
  middle = 2 * gray[2:-2]
  near = np.abs(middle - gray[1:-3] - gray[3:-1])
  far = np.abs(middle - gray[:-4] - gray[4:])
  excess = (near - far).reshape(rows, _BLOCK, columns, _BLOCK).mean(axis=(1, 3))
  return bool((excess > _COMB).mean() > _COMBED)


def _one_field(frame, size: tuple[int, int]) -> np.ndarray:
  """The upper field alone; the lines between its own are their means."""
  field = _filtered(frame, ("field", "top"), ("setfield", "prog"))
  lines = _to_rgb(field, (field.height, frame.width), None)
  image = np.repeat(lines, 2, axis=0)[: frame.height]
  below = image[1:-1:2]
  below[:] = (
    lines[: len(below)].astype(np.uint16) + lines[1 : len(below) + 1] + 1
  ) // 2
  return _to_rgb(av.VideoFrame.from_ndarray(image, format="rgb24"), size, "AREA")


def _filtered(frame, *filters: tuple[str, str]):
  """Passes one frame through filters of libavfilter that look at no other one."""
  graph = av.filter.Graph()
  nodes = [
    graph.add_buffer(
      width=frame.width,
      height=frame.height,
      format=frame.format,
      time_base=fractions.Fraction(1, 25),  # of no effect
    ),
    *(graph.add(name, options) for name, options in filters),
    graph.add("buffersink"),
  ]
  graph.link_nodes(*nodes).configure()
  graph.push(frame)
  return graph.pull()


def _upright(image: np.ndarray, frame) -> np.ndarray:
  """Turns and mirrors an image as the frame's display matrix says."""
  data = frame.side_data.get("DISPLAYMATRIX")
  if data is None:
    return image
  # A pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift.
  a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
  if abs(a) + abs(d) < abs(b) + abs(c):
    image, a, d = image.transpose(1, 0, 2), c, b
  return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _warn_of_range(name: str, curve: str) -> None:
  global _told
  if not _told:
    _told = True
    logger.warning(
      "%s has a high dynamic range (%s), which is not tone-mapped: its colours are "
      "pale; convert such videos first if that matters (told once)",
      name,
      curve,
    )
