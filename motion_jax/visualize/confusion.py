"""The confusion matrix of a classifier as one PNG, with its most frequent mistakes."""

import os
from collections.abc import Sequence

import numpy as np

from motion_jax.visualize.canvas import shortened
from motion_jax.visualize.style import (
  FONT,
  GREY,
  INK,
  LIGHT,
  SMALL,
  TEXT,
  figure,
  frame,
  printable,
)

_MOST_NUMBERS, _MOST_NAMES = 24, 110  # classes whose counts, and names, can be read


def save_confusion(
  path: str | os.PathLike,
  matrix: np.ndarray,
  classes: Sequence[str],
  mistakes: Sequence[tuple[int, int, int]] = (),
) -> None:
  """Writes the matrix in shares of each true class, as colours.

  Args:
    path: file to write.
    matrix: int [C, C], true class by row, predicted class by column.
    classes: C names.
    mistakes: (true class, predicted class, videos), listed beside the matrix.
  """
  count, total = len(matrix), matrix.sum()
  shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
  side = float(np.clip(0.42 * count, 3.6, 12))
  sheet = figure(side, side)
  axes = sheet.add_axes((0, 0, 1, 1))  # what is around it makes the picture larger
  image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
  right = np.trace(matrix) / max(total, 1)
  frame(axes, f"{right:.1%} of {total} videos right")
  axes.set_xlabel("predicted", fontsize=TEXT, color=GREY)
  axes.set_ylabel("true", fontsize=TEXT, color=GREY)
  size = float(np.clip(72 * side / count / 1.25, 3, 8))
  if count <= _MOST_NAMES:
    names = [_plain(name) for name in classes]
    axes.set_xticks(range(count), names, rotation=90, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
  if count <= _MOST_NUMBERS:
    for row, column in zip(*np.nonzero(matrix), strict=True):
      color = "white" if shares[row, column] > 0.55 else INK
      text = str(matrix[row, column])
      axes.text(column, row, text, size=SMALL, color=color, ha="center", va="center")
  bar = sheet.colorbar(image, cax=axes.inset_axes((1.03, 0.2, 0.03, 0.6)))
  bar.set_label("share of the true class", fontsize=SMALL, color=GREY)
  bar.ax.tick_params(labelsize=SMALL)
  bar.outline.set_edgecolor(LIGHT)
  _list(axes, [(_plain(classes[a]), _plain(classes[b]), n) for a, b, n in mistakes])
  sheet.savefig(path, format="png", bbox_inches="tight", pad_inches=0.15)


def _list(axes, mistakes):
  """Writes the mistakes to the right of the matrix and its colour bar."""
  if not mistakes:
    return
  lines = [f"{number}  {true} → {guess}" for true, guess, number in mistakes]
  place = dict(xycoords="axes fraction", textcoords="offset points")
  options = dict(color=INK, va="top", family=FONT, annotation_clip=False)
  left = 62 + 0.06 * axes.figure.get_figwidth() * 72
  title = "most frequent mistakes"
  axes.annotate(title, (1, 1), (left, 0), size=TEXT, weight="bold", **place, **options)
  text = "\n".join(lines)
  axes.annotate(
    text, (1, 1), (left, -18), size=SMALL, linespacing=1.7, **place, **options
  )


def _plain(name):
  return printable(shortened(str(name), 24))
