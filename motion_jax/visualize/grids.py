"""Rows of pictures with captions: examples of clusters, nearest neighbours."""

import os
from collections.abc import Sequence

import numpy as np

from motion_jax.visualize.canvas import Canvas, scale_of
from motion_jax.visualize.style import GREY, INK, SMALL, TEXT

GAP, CAPTION, HEADER, TITLES = 8, 20, 34, 190


def save_picture_grid(
  path: str | os.PathLike,
  rows: Sequence[Sequence[np.ndarray]],
  *,
  titles: Sequence[Sequence[str]],
  captions: Sequence[Sequence[str]],
  colors: Sequence[Sequence[str | None]] | None = None,
  headers: Sequence[str] = (),
) -> None:
  """Writes a PNG of pictures in rows; rows may end early.

  Args:
    path: file to write.
    rows: pictures [H, W, 3] uint8 of one size.
    titles: for every row the lines of text left of it, the first one larger.
    captions: for every picture the text below it.
    colors: for every picture that of its outline, or None.
    headers: texts above the columns.
  """
  pictures = np.stack([picture for row in rows for picture in row])
  scale, columns = scale_of(pictures), max(map(len, rows))
  height, width = (scale * side for side in pictures.shape[1:3])
  pitch_x, pitch_y = width + GAP, height + CAPTION + GAP
  top = HEADER if headers else GAP
  canvas = Canvas(TITLES + columns * pitch_x + GAP, top + len(rows) * pitch_y)
  for column, header in enumerate(headers):
    x = TITLES + column * pitch_x + width / 2
    canvas.text(x, HEADER / 2, header, size=SMALL, color=GREY)
  for number, row in enumerate(rows):
    y = top + number * pitch_y
    for line, text in enumerate(titles[number]):
      size, color = (TEXT, INK) if line == 0 else (SMALL, GREY)
      place = y + height / 2 + 17 * (line - (len(titles[number]) - 1) / 2)
      canvas.text(
        12, place, text, size=size, color=color, align="left", width=TITLES - 20
      )
    for column, picture in enumerate(row):
      x = TITLES + column * pitch_x
      color = colors[number][column] if colors else None
      canvas.frame(picture, x, y, scale=scale, color=color)
      text, middle = captions[number][column], y + height + CAPTION / 2
      look = dict(size=SMALL, color=color or GREY, width=width)
      canvas.text(x + width / 2, middle, text, **look)
  canvas.save(path)
