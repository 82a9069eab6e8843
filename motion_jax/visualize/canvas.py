"""A white picture on which frames are drawn pixel for pixel, and text between them."""

import os

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

INK, GREY = "#222222", "#777777"
GOOD, BAD = "#2a9d4b", "#d1495b"
# Smallest side of a frame in a picture, in pixels.
SMALLEST = 112
_DOTS_PER_INCH = 100
_LETTER = 0.85  # mean width of a letter in pixels per point of the font's size


class Canvas:
  """A picture in the making; its unit is a pixel, y goes downwards.

  Args:
    width, height: in pixels.
  """

  def __init__(self, width: int, height: int):
    size = (width / _DOTS_PER_INCH, height / _DOTS_PER_INCH)
    self._figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(self._figure)
    self._axes = self._figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    self._axes.axis("off")
    self._axes.set_autoscale_on(False)

  def frame(self, frame: np.ndarray, left, top, *, scale=1, color=None) -> None:
    """Draws a frame [H, W, 3] uint8 `scale` times as large, outlined if `color`."""
    height, width = (side * scale for side in frame.shape[:2])
    extent = (left, left + width, top + height, top)
    self._axes.imshow(frame, extent=extent, interpolation="nearest", aspect="auto")
    if color:
      edge = Rectangle(
        (left - 1, top - 1), width + 2, height + 2, fill=False, edgecolor=color, lw=2.6
      )
      self.draw(edge)

  def draw(self, patch: Patch) -> None:
    """Draws a shape."""
    self._axes.add_patch(patch)

  def text(self, x, y, text: str, *, size=9, color=INK, align="center", width=None):
    """Writes a line around (x, y), shortened to about `width` pixels if given."""
    if width is not None:
      text = shortened(text, max(4, int(width / (size * _LETTER))))
    self._axes.text(
      x,
      y,
      _printable(text),
      size=size,
      color=color,
      ha=align,
      va="center",
      family="DejaVu Sans",
      parse_math=False,
    )

  def save(self, path: str | os.PathLike) -> None:
    """Writes the picture as PNG."""
    self._figure.savefig(path, format="png")


def scale_of(pictures: np.ndarray) -> int:
  """How many times pictures [..., H, W, 3] are enlarged to be seen well."""
  return -(-SMALLEST // min(pictures.shape[-3:-1]))


def shortened(text: str, length: int) -> str:
  """A text of at most `length` letters; what is left out of its middle is '…'."""
  if len(text) <= length:
    return text
  tail = (length - 1) // 2
  return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def _printable(text):
  """File names may hold bytes that are no text."""
  return text.encode("utf-8", "replace").decode("utf-8")
