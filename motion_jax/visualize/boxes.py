"""Pictures of frames with the boxes of people and the numbers of their actions."""

import os
import pathlib

import numpy as np

from motion_jax.visualize.canvas import Canvas
from motion_jax.visualize.style import RED, SMALL

_SMALLEST_SIDE = 224
_GAP = 6


def save_boxes(
  path: str | os.PathLike,
  frames: np.ndarray,
  boxes: np.ndarray,
  person: np.ndarray,
  actions: np.ndarray,
  *,
  mean=0.0,
  std=1.0,
) -> None:
  """Writes a PNG: the frames in rows of three, with boxes and action numbers.

  Args:
    path: file to write.
    frames: [N, H, W, 3] float, in [0, 1] after (frame * std + mean).
    boxes: [N, P, 4], (x1, y1, x2, y2) in pixels.
    person: [N, P] bool, which boxes are drawn.
    actions: [N, P, A] bool; column `number - 1` is the action with that number.
    mean, std: undo the normalisation.
  """
  scale = -(-_SMALLEST_SIDE // min(frames.shape[1:3]))
  values = (frames * np.asarray(std) + np.asarray(mean)).clip(0, 1)
  height, width = (side * scale for side in frames.shape[1:3])
  columns = min(3, len(frames))
  rows = -(-len(frames) // columns)
  canvas = Canvas(columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP)
  for number, value in enumerate(values):
    row, column = divmod(number, columns)
    left, top = _GAP + column * (width + _GAP), _GAP + row * (height + _GAP)
    canvas.frame(np.rint(255 * value).astype(np.uint8), left, top, scale=scale)
    shown = person[number]
    for box, labels in zip(boxes[number][shown], actions[number][shown], strict=True):
      x, y, right, bottom = box * scale
      canvas.box(left + x, top + y, right - x, bottom - y)
      text = " ".join(map(str, np.flatnonzero(labels) + 1))
      look = dict(boxstyle="square,pad=0.2", facecolor="white", edgecolor="none")
      look = dict(size=SMALL, color=RED, align="left", bbox=look)
      canvas.text(left + x + 5, top + y + 11, text, **look)
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  canvas.save(path)
