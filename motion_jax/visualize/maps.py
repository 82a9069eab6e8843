"""Maps over clips, in rows under one another: Grad-CAM, attention, speed.

Clips are [N, T, H, W, 3] uint8, maps [N, T, H, W] in [0, 1].
"""

import os
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np

from motion_jax.visualize.canvas import Canvas, scale_of
from motion_jax.visualize.clips import save_gif
from motion_jax.visualize.style import GREY

GAP, BLOCK_GAP = 4, 30
HEADER, LABELS = 26, 104
LINE = 15  # of a name
_VISIBLE = 0.995  # share of the speeds that are darker than white
_STILL = 0.1  # pixels per frame: slower frames stay dark


def overlay(clips: np.ndarray, maps: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
  """Lays maps over clips, in the colours of viridis as in SlowFast's pictures.

  Args:
    clips: [N, T, H, W, 3] uint8.
    maps: [N, T, H, W] in [0, 1].
    alpha: share of the map in the result.

  Returns:
    [N, T, H, W, 3] uint8.
  """
  return _bytes(alpha * _coloured(maps, "viridis") + (1 - alpha) * (clips / 255))


def speed_pictures(speed: np.ndarray) -> np.ndarray:
  """The length of the flow [N, T, H, W] as [N, T, H, W, 3] uint8, by frame."""
  white = np.quantile(speed, _VISIBLE, axis=(2, 3), keepdims=True)
  return _bytes(_coloured(np.clip(speed / np.maximum(white, _STILL), 0, 1), "magma"))


def save_map_grid(
  path: str | os.PathLike,
  rows: Mapping[str, np.ndarray],
  titles: Sequence[str],
  *,
  frames: int = 4,
  columns: int = 2,
) -> None:
  """Writes a PNG with a block per clip: its frames, below them the same with maps.

  Args:
    path: file to write.
    rows: [N, T, H, W, 3] uint8 by name, from top to bottom.
    titles: N texts above the blocks.
    frames: number of frames shown, evenly spaced, first and last included.
    columns: blocks beside each other.
  """
  pictures = np.stack(list(rows.values()), axis=1)  # [N, rows, T, H, W, 3]
  count, lines, length = pictures.shape[:3]
  shown = np.unique(np.linspace(0, length - 1, min(frames, length)).round().astype(int))
  scale, columns = scale_of(pictures), min(columns, count)
  pitch_y, pitch_x = (scale * side + GAP for side in pictures.shape[3:5])
  block = np.array([len(shown) * pitch_x + BLOCK_GAP, HEADER + lines * pitch_y + 14])
  canvas = Canvas(LABELS + columns * block[0], -(-count // columns) * block[1])
  for number in range(count):
    down, across = divmod(number, columns)
    left, top = LABELS + across * block[0], down * block[1]
    width = len(shown) * pitch_x - GAP
    canvas.text(left + width / 2, top + HEADER / 2, titles[number], width=width)
    for line, name in enumerate(rows):
      y = top + HEADER + line * pitch_y
      if across == 0:
        _write_lines(canvas, name, LABELS - 8, y + (pitch_y - GAP) / 2)
      for place, frame in enumerate(shown):
        picture = pictures[number, line, frame]
        canvas.frame(picture, left + place * pitch_x, y, scale=scale)
  canvas.save(path)


def save_map_gif(
  path: str | os.PathLike, rows: Mapping[str, np.ndarray], *, fps: float = 8
) -> None:
  """Writes a GIF: a line per clip, its rows beside each other under their names.

  Args:
    path: file to write.
    rows: [N, T, H, W, 3] uint8 by name, from left to right.
    fps: frames per second.
  """
  pictures = np.stack(list(rows.values()))  # [rows, N, T, H, W, 3]
  scale = scale_of(pictures)
  pictures = pictures.repeat(scale, axis=3).repeat(scale, axis=4)
  edges = [(0, 0)] * 3 + [(0, GAP), (0, GAP), (0, 0)]
  pictures = np.pad(pictures, edges, constant_values=255)
  count, clips, length, height, width, _ = pictures.shape
  frames = pictures.transpose(2, 1, 3, 0, 4, 5)
  frames = frames.reshape(length, clips * height, count * width, 3)
  header = HEADER + LINE * max(name.count("\n") for name in rows)
  names = np.full((header, count * width, 3), 255, np.uint8)
  font, look = cv2.FONT_HERSHEY_SIMPLEX, ((34, 34, 34), 1, cv2.LINE_AA)
  for number, name in enumerate(rows):
    for down, text in enumerate(name.split("\n"), 1):
      cv2.putText(names, text, (number * width + 2, down * LINE), font, 0.36, *look)
  names = np.broadcast_to(names, (length, *names.shape))
  save_gif(path, np.concatenate([names, frames], axis=1)[None], fps=fps)


def _write_lines(canvas, text, right, middle):
  lines = text.split("\n")
  for number, line in enumerate(lines):
    y = middle + LINE * (number - (len(lines) - 1) / 2)
    canvas.text(right, y, line, size=8, color=GREY, align="right")


def _coloured(maps, name):
  return matplotlib.colormaps[name](np.asarray(maps))[..., :3]


def _bytes(pictures):
  return np.rint(255 * pictures).astype(np.uint8)
