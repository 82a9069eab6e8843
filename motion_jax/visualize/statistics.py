"""Pictures of the statistics of MAS: patterns, chosen regions and directions."""

import os
import pathlib

import contourpy
import cv2
import jax
import numpy as np
from matplotlib.patches import Polygon

from motion_jax.ops import partition
from motion_jax.ops.appearance_statistics import COLOUR_NAMES
from motion_jax.ops.motion_statistics import motion_boundaries
from motion_jax.ops.statistics import label_table
from motion_jax.visualize.canvas import Canvas, scale_of
from motion_jax.visualize.clips import save_gif
from motion_jax.visualize.modist import flow_colours
from motion_jax.visualize.style import BLUE, GREY, RED, SMALL

WAYS = "→↘↓↙←↖↑↗"  # of 45 degrees each, as MAS counts them
STRONG, CALM, LINE = RED, BLUE, "#c8c8c8"
_VISIBLE = 0.995  # share of the boundaries that are darker than white
# Beside the lines of a block.
_LEGEND = (
  (
    "u: flow to the right, v: down;",
    "where it changes most,",
    "and in which direction",
  ),
  ("where colours change", "most (red), least (blue);", "dashed, (): predicted"),
)
_PITCH, _ABOVE, _BELOW = 184, 20, 34  # pixels: of columns, of texts around a picture


def save_statistics(
  path: str | os.PathLike,
  video: np.ndarray,
  flow: np.ndarray,
  labels: np.ndarray,
  guesses: np.ndarray | None = None,
) -> None:
  """Writes a PNG with a block of three lines per clip.

  At its left is the middle frame with its mean flow. The lines have, under each
  pattern, the strength of the summed motion boundaries of u (to the right) and of v
  (down), with the strongest region outlined and an arrow in its direction; and the
  frame with the region whose colours change most (red) and least (blue). What was
  predicted is dashed, and told in brackets.

  Args:
    path: file to write; its folder is made.
    video: [N, T, S, S, 3] uint8.
    flow: [N, T - 1, S, S, 2].
    labels: [N, 27] int, all labels; see `label_table`.
    guesses: [N, 27] int, predicted labels, 0 where none is; None without predictions.
  """
  boundaries, _ = jax.jit(motion_boundaries)(flow)
  video, flow, labels, boundaries = map(np.asarray, (video, flow, labels, boundaries))
  guesses = np.zeros_like(labels) if guesses is None else guesses
  table, regions = label_table(video.shape[1]), partition.by_pattern(video.shape[2])
  scale = scale_of(video)
  side = scale * video.shape[2]
  pitch, line = max(_PITCH, side + 8), _ABOVE + side + _BELOW
  canvas = Canvas(pitch * (1 + len(regions)), 3 * line * len(video))
  for number in range(len(video)):
    found, guess = (
      {
        (label.pattern, label.what, label.kind): int(value)
        for label, value in zip(table, values[number], strict=True)
      }
      for values in (labels, guesses)
    )
    top, frame = 3 * line * number, video[number, video.shape[1] // 2]
    cell = _Cell(canvas, pitch, line, side, scale)
    cell.show(0, top, frame, "clip, mean flow", _about(found))
    cell.draw_flow(0, top, flow[number].mean(0))
    for row, texts in enumerate(_LEGEND, 1):
      cell.write(0, top + row * line, texts)
    for column, (pattern, masks) in enumerate(regions.items(), 1):
      for row, component in enumerate("uv"):
        picture = grey(np.hypot(*boundaries[number, row]))
        keys = [(pattern, component, x) for x in ("location", "orientation")]
        (place, way), said = ([x[key] for key in keys] for x in (found, guess))
        text = f"{place} {WAYS[way - 1]}"
        text += f" ({said[0]} {WAYS[said[1] - 1]})" if all(said) else ""
        y = top + row * line
        cell.show(column, y, picture, f"{component}, {pattern}", [text])
        cell.outline(column, y, masks, {place: STRONG}, {said[0]: STRONG})
        cell.point(column, y, masks[place - 1], way)
      y = top + 2 * line
      cell.show(column, y, frame, f"colour, {pattern}", _colours(pattern, found, guess))
      chosen, said = (
        {x[pattern, what, "location"]: shade for what, shade in _SHADES.items()}
        for x in (found, guess)
      )
      cell.outline(column, y, masks, chosen, said)
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  canvas.save(path)


def save_flow_gif(path: str | os.PathLike, video: np.ndarray, flow: np.ndarray) -> None:
  """Writes a GIF: the clips [N, T, S, S, 3] beside their flow as colours.

  Hue is the direction, brightness the length of the flow, as a share of the longest.
  """
  video, flow = np.asarray(video), np.asarray(flow)
  length = np.hypot(flow[..., 0], flow[..., 1])
  top = np.maximum(length.max((1, 2, 3), keepdims=True), 1e-6)
  brightness = (255 * length / top).astype(np.uint8)
  colours = np.stack([*map(flow_colours, flow, brightness)])
  save_gif(path, np.concatenate([video[:, :-1], colours], axis=3))


def inner_pixel(region: np.ndarray) -> tuple[int, int]:
  """A pixel (x, y) well inside a region [S, S] bool: a ring's is not at its centre."""
  depth = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 3)
  y, x = np.unravel_index(depth.argmax(), depth.shape)
  return x - 1, y - 1


def grey(strength: np.ndarray) -> np.ndarray:
  """Strengths [S, S] as a picture [S, S, 3] uint8, as bright as it can be."""
  white = max(float(np.quantile(strength, _VISIBLE)), 1e-6)
  values = np.rint(255 * np.clip(strength / white, 0, 1)).astype(np.uint8)
  return np.repeat(values[..., None], 3, axis=-1)


def outline(canvas: Canvas, left, top, mask: np.ndarray, *, scale=1, **look) -> None:
  """Outlines a region [S, S] bool of a picture whose corner is (left, top).

  Args:
    canvas: with the picture on it.
    mask: the region.
    scale: of the picture.
    **look: of matplotlib's `Polygon`.
  """
  edges = contourpy.contour_generator(z=np.pad(mask.astype(float), 1))
  for line in edges.lines(0.5):
    corners = (line - 0.5) * scale + (left, top)
    canvas.draw(Polygon(corners, fill=False, **look))


class _Cell:
  """Draws the cells of a block, by column and upper edge."""

  def __init__(self, canvas, pitch, line, side, scale):
    self._canvas, self._side, self._scale = canvas, side, scale
    self._pitch, self._line = pitch, line

  def show(self, column, top, picture, above, below):
    left, middle = self._left(column), (column + 0.5) * self._pitch
    y = top + _ABOVE
    self._canvas.frame(picture, left, y, scale=self._scale)
    self._canvas.text(middle, top + _ABOVE / 2, above, size=SMALL, color=GREY)
    for number, text in enumerate(below):
      place = y + self._side + 9 + 13 * number
      self._canvas.text(middle, place, text, size=SMALL)

  def write(self, column, top, texts):
    middle, first = (column + 0.5) * self._pitch, top + _ABOVE + self._side / 2
    for number, text in enumerate(texts):
      place = first + 15 * (number - len(texts) / 2)
      self._canvas.text(middle, place, text, size=SMALL, color=GREY)

  def draw_flow(self, column, top, flow):
    step = len(flow) // 8
    longest = max(float(np.hypot(*np.moveaxis(flow, -1, 0)).max()), 1e-6)
    for y in range(step // 2, len(flow), step):
      for x in range(step // 2, len(flow), step):
        across, down = flow[y, x] * step * self._scale / longest
        if np.hypot(across, down) > 1:
          place = self._place(column, top, x, y)
          self._canvas.arrow(*place, across, down, width=1.2)

  def outline(self, column, top, masks, chosen, guess):
    place, options = (self._left(column), top + _ABOVE), dict(scale=self._scale)
    for mask in masks:
      outline(self._canvas, *place, mask, edgecolor=LINE, lw=0.7, **options)
    for colors, look in ((chosen, dict(lw=2)), (guess, dict(lw=1.6, ls="--"))):
      for number, color in colors.items():
        if number:
          mask = masks[number - 1]
          outline(self._canvas, *place, mask, edgecolor=color, **look, **options)

  def point(self, column, top, mask, way):
    angle, reach = (way - 1) * np.pi / 4, self._side / 4
    place = self._place(column, top, *inner_pixel(mask))
    self._canvas.arrow(*place, reach * np.cos(angle), reach * np.sin(angle))

  def _left(self, column):
    return column * self._pitch + (self._pitch - self._side) / 2

  def _place(self, column, top, x, y):
    return self._left(column) + x * self._scale, top + _ABOVE + y * self._scale


_SHADES = {"stable": CALM, "diverse": STRONG}


def _about(found):
  colour = COLOUR_NAMES[found["", "clip", "colour"] - 1]
  frames = [found["", side, "frame"] for side in "uv"]
  return ["strongest frame: u {}, v {}".format(*frames), f"colour: {colour}"]


def _colours(pattern, found, guess):
  texts = []
  for what in reversed(_SHADES):
    keys = [(pattern, what, x) for x in ("location", "colour")]
    places, colours = ([x[key] for x in (found, guess)] for key in keys)
    names = [COLOUR_NAMES[code - 1] if code else 0 for code in colours]
    texts.append(f"{what} {_beside(*places)}: {_beside(*names)}")
  return texts


def _beside(true, guess):
  """'3', or '3 (5)' with a prediction."""
  return f"{true} ({guess})" if guess else str(true)
