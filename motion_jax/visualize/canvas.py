"""A white picture on which frames are drawn pixel for pixel, and text between them."""

import os

import numpy as np
from matplotlib.patches import Circle, FancyArrow, Patch, Rectangle

from motion_jax.visualize.style import DOTS, FONT, INK, RED, TEXT, figure

# Smallest side of a frame in a picture, in pixels.
SMALLEST = 112
_LETTER = 0.85  # mean width of a letter in pixels per point of the font's size


class Canvas:
  """A picture in the making; its unit is a pixel, y goes downwards.

  Args:
    width, height: in pixels.
  """

  def __init__(self, width: int, height: int):
    self._figure = figure(width / DOTS, height / DOTS)
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

  def box(self, left, top, width, height) -> None:
    """Outlines a part of a frame."""
    # Light under dark: visible on any picture.
    for color, line in (("white", 3), (RED, 1.4)):
      place, look = ((left, top), width, height), dict(edgecolor=color, linewidth=line)
      self.draw(Rectangle(*place, fill=False, **look))

  def arrow(self, x, y, across, down, *, width=3.6) -> None:
    """Draws an arrow (across, down) around (x, y), a dot if it has no length."""
    across, down = float(across), float(down)
    if not across and not down:
      self.draw(Circle((x, y), 4, color=RED))
      return
    head = min(3.4 * width, 0.7 * np.hypot(across, down))
    sizes = dict(width=width, head_width=head, head_length=head, lw=0.8)
    place = (x - across / 2, y - down / 2, across, down)
    edge = "white" if width > 2 else RED
    look = dict(facecolor=RED, edgecolor=edge, length_includes_head=True)
    self.draw(FancyArrow(*place, **sizes, **look))

  def text(
    self, x, y, text: str, *, size=TEXT, color=INK, align="center", width=None, **look
  ):
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
      family=FONT,
      parse_math=False,
      **look,
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
