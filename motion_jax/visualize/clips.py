"""Pictures of clips: a grid of frames as PNG, a looping GIF.

Clips are [N, T, H, W, 3]: uint8, or float in [0, 1] after (clip * std + mean), which
undoes a normalisation. Arrows are (x, y) in [-1, 1], positive to the right and down.
"""

import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from motion_jax.visualize.canvas import Canvas, scale_of
from motion_jax.visualize.style import GREY, INK, RED, SMALL, rgb

GAP = 6
HEADER = 22
_REACH = 48  # pixels of the longest arrow


def save_clip_grid(
  path: str | os.PathLike,
  clips: np.ndarray,
  *,
  titles: Sequence[str] | None = None,
  colors: Sequence[str] | None = None,
  arrows: np.ndarray | None = None,
  boxes: np.ndarray | None = None,
  frames: int = 6,
  caption: str = "",
  mean=0.0,
  std=1.0,
) -> None:
  """Writes a PNG: one row per clip, some of its frames, title and arrow at the left.

  Args:
    path: file to write.
    clips: [N, T, H, W, 3], see the module.
    titles: N texts.
    colors: N colours of them.
    arrows: [N, 2], for MoSI how the crop window moves; (0, 0) is drawn as a dot.
    boxes: [N, 3], (x, y, side) in pixels of a square to outline, such as the box of
      the static mask.
    frames: number of frames shown, evenly spaced, first and last included.
    caption: lines below the clips.
    mean, std: undo the normalisation.

  Raises:
    ValueError: if `clips` has another shape.
  """
  clips = _to_uint8(clips, mean, std)
  count, length, height, width, _ = clips.shape
  shown = np.unique(np.linspace(0, length - 1, min(frames, length)).round().astype(int))
  scale = scale_of(clips)
  pitch = np.array([width, height]) * scale + GAP
  label_width = _label_width(titles, arrows)
  first = np.array([label_width + GAP, HEADER])
  right, bottom = first + pitch * (len(shown), count)
  lines = caption.splitlines()
  canvas = Canvas(right, bottom + HEADER * len(lines))
  for place, line in enumerate(lines, 1):
    middle = bottom + HEADER * (place - 0.5)
    canvas.text(GAP, middle, line, size=SMALL, align="left", width=right)
  for column, frame in enumerate(shown):
    left, middle = first[0] + column * pitch[0], HEADER / 2
    text = f"frame {frame}" if column == 0 else f"{frame}"
    canvas.text(left + (pitch[0] - GAP) / 2, middle, text, size=SMALL, color=GREY)
    for row in range(count):
      top = first[1] + row * pitch[1]
      canvas.frame(clips[row, frame], left, top, scale=scale)
      if boxes is not None:
        x, y, side = np.asarray(boxes[row]) * scale
        canvas.box(left + x, top + y, side, side)
  for row in range(count):
    middle = first[1] + row * pitch[1] + (pitch[1] - GAP) / 2
    if titles is not None:
      color = colors[row] if colors else INK
      canvas.text(label_width / 2, middle - 30, titles[row], color=color)
    if arrows is not None:
      across, down = _REACH * np.asarray(arrows[row], float)
      canvas.arrow(label_width / 2, middle + 16, across, down)
  canvas.save(path)


def save_clips(
  path: str | os.PathLike, clips: np.ndarray, *, titles, caption="", mean, std
) -> None:
  """Writes path.png and path.gif; makes the folder. See `save_clip_grid`."""
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  save_clip_grid(
    f"{path}.png", clips, titles=titles, caption=caption, mean=mean, std=std
  )
  save_gif(f"{path}.gif", clips, mean=mean, std=std)


def save_gif(
  path: str | os.PathLike,
  clips: np.ndarray,
  *,
  arrows: np.ndarray | None = None,
  fps: float = 8,
  mean=0.0,
  std=1.0,
) -> None:
  """Writes a looping GIF of all clips side by side in a near-square grid.

  Args:
    path: file to write.
    clips: [N, T, H, W, 3], see the module.
    arrows: [N, 2], drawn in a strip above each clip.
    fps: frames per second; the last frame is held for half a second.
    mean, std: undo the normalisation.

  Raises:
    ValueError: if `clips` has another shape.
  """
  clips = _to_uint8(clips, mean, std)
  scale = scale_of(clips)
  clips = clips.repeat(scale, axis=2).repeat(scale, axis=3)
  if arrows is not None:
    strips = np.stack([_arrow_strip(arrow, clips.shape[3]) for arrow in arrows])
    strips = np.broadcast_to(
      strips[:, None], (*clips.shape[:2], *strips.shape[1:])
    ).astype(np.uint8)
    clips = np.concatenate([strips, clips], axis=2)
  frames = [Image.fromarray(frame) for frame in _tile(clips)]
  durations = [round(1000 / fps)] * (len(frames) - 1) + [500]
  frames[0].save(
    path,
    format="GIF",
    save_all=True,
    append_images=frames[1:],
    duration=durations,
    loop=0,
  )


def _to_uint8(clips, mean, std):
  clips = np.asarray(clips)
  if clips.ndim != 5 or clips.shape[-1] != 3:
    raise ValueError(f"clips must be [N, T, H, W, 3], found {clips.shape}")
  if clips.dtype == np.uint8:
    return clips
  clips = clips.astype(np.float32) * np.asarray(std) + np.asarray(mean)
  return np.rint(np.clip(clips, 0, 1) * 255).astype(np.uint8)


def _tile(clips):
  """[N, T, H, W, 3] -> [T, rows * H, columns * W, 3] with white gaps."""
  count = len(clips)
  columns = int(np.ceil(np.sqrt(count)))
  rows = -(-count // columns)
  padded = np.full((rows * columns, *clips.shape[1:]), 255, np.uint8)
  padded[:count] = clips
  edges = ((0, 0), (0, 0), (GAP // 2, GAP // 2), (GAP // 2, GAP // 2), (0, 0))
  padded = np.pad(padded, edges, constant_values=255)
  _, length, height, width, _ = padded.shape
  grid = padded.reshape(rows, columns, length, height, width, 3)
  return grid.transpose(2, 0, 3, 1, 4, 5).reshape(
    length, rows * height, columns * width, 3
  )


def _label_width(titles, arrows):
  """Pixels left of the frames: the longest line of text, at least an arrow."""
  widths = [
    len(line) * 7.5 + 12 for title in titles or () for line in title.split("\n")
  ]
  return round(max([*widths, 0 if arrows is None else 80]))


def _arrow_strip(arrow, width, height=34):
  """Returns [height, width, 3]: the arrow on white, for a GIF."""
  strip = np.full((height, width, 3), 255, np.uint8)
  color = rgb(RED)
  centre = np.array([width / 2, height / 2])
  reach = np.asarray(arrow, float) * (height - 8) / 2
  if not reach.any():
    cv2.circle(strip, tuple(centre.astype(int)), 4, color, -1, cv2.LINE_AA)
    return strip
  start, end = (tuple((centre + sign * reach).astype(int)) for sign in (-1, 1))
  tip = 8 / max(np.hypot(*(2 * reach)), 8)
  cv2.arrowedLine(strip, start, end, color, 2, cv2.LINE_AA, tipLength=tip)
  return strip
