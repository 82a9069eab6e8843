"""Pictures of the statistics of MAS: patterns, chosen regions and directions."""

import os
import pathlib

import cv2
import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from motion_jax.ops import partition
from motion_jax.ops.appearance_statistics import COLOUR_NAMES
from motion_jax.ops.motion_statistics import motion_boundaries
from motion_jax.ops.statistics import label_table
from motion_jax.visualize.clips import save_gif
from motion_jax.visualize.modist import flow_colours

CELL_INCHES = 1.5
STRONG, CALM, LINE = "#d1495b", "#2e86ab", "#ffffff"
HEADS = ("clip", *(f"{side} boundaries" for side in "uv"), "colour over time")


def save_statistics(
  path: str | os.PathLike,
  video: np.ndarray,
  flow: np.ndarray,
  labels: np.ndarray,
  guesses: np.ndarray | None = None,
) -> None:
  """Writes a PNG with a row per clip.

  A row has the middle frame with its mean flow; for u and v the strength of the summed
  motion boundaries under each pattern, with the strongest region outlined and an arrow
  in its direction; and the patterns over the frame with the least (red) and the most
  (blue) stable region outlined. What was predicted is dashed, and told in brackets.

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
  count, columns = len(video), 1 + 3 * len(regions)
  figure = Figure((CELL_INCHES * columns, CELL_INCHES * 1.36 * count), dpi=100)
  FigureCanvasAgg(figure)
  axes = figure.subplots(count, columns, squeeze=False)
  for row, cells in enumerate(axes):
    found, guessed = (
      {
        (label.pattern, label.what, label.kind): int(value)
        for label, value in zip(table, values[row], strict=True)
      }
      for values in (labels, guesses)
    )
    frame = video[row, video.shape[1] // 2]
    _draw_flow(cells[0], frame, flow[row].mean(0))
    cells[0].set_xlabel(
      f"strongest frame: u {found['', 'u', 'frame']}, v {found['', 'v', 'frame']}\n"
      f"colour: {COLOUR_NAMES[found['', 'clip', 'colour'] - 1]}",
      fontsize=6,
    )
    rest = iter(cells[1:])
    for side, component in enumerate("uv"):
      strength = np.hypot(*boundaries[row, side])
      for pattern, masks in regions.items():
        chosen, guess = (
          [values[pattern, component, x] for x in ("location", "orientation")]
          for values in (found, guessed)
        )
        _draw_motion(next(rest), strength, masks, component, *chosen, guess)
    for pattern, masks in regions.items():
      _draw_appearance(next(rest), frame, masks, pattern, found, guessed)
  figure.tight_layout(pad=0.4)
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path)


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


def _draw_flow(axes, frame, flow):
  size, step = frame.shape[0], frame.shape[0] // 8
  _show(axes, frame, HEADS[0])
  places = np.arange(step // 2, size, step)
  u, v = np.moveaxis(flow[places][:, places], -1, 0)
  longest = max(float(np.hypot(u, v).max()), 1e-6)
  axes.quiver(
    *(places, places, u, v),
    color=STRONG,
    angles="xy",
    scale_units="xy",
    scale=longest / step,
    width=0.012,
  )


def _draw_motion(axes, strength, masks, component, place, direction, guess):
  _show(axes, strength, HEADS[1 + "uv".index(component)], cmap="gray")
  _draw_regions(axes, masks, {place: STRONG}, {guess[0]: STRONG})
  x, y = inner_pixel(masks[place - 1])
  angle = (direction - 1) * np.pi / 4
  reach = len(strength) / 6
  axes.annotate(
    "",
    (x + reach * np.cos(angle), y + reach * np.sin(angle)),
    (x, y),
    arrowprops=dict(arrowstyle="-|>", color=STRONG, linewidth=1.6),
  )
  text = f"region {_beside(place, guess[0])}, direction {_beside(direction, guess[1])}"
  axes.set_xlabel(text, fontsize=6)


def _draw_appearance(axes, frame, masks, pattern, found, guessed):
  _show(axes, frame, HEADS[3])
  shades = {"stable": CALM, "diverse": STRONG}
  chosen, guess = (
    {values[pattern, side, "location"]: shade for side, shade in shades.items()}
    for values in (found, guessed)
  )
  _draw_regions(axes, masks, chosen, guess)
  texts = []
  for side in reversed(shades):
    place = _beside(*(v[pattern, side, "location"] for v in (found, guessed)))
    codes = [v[pattern, side, "colour"] for v in (found, guessed)]
    names = [COLOUR_NAMES[code - 1] if code else 0 for code in codes]
    texts.append(f"{side} {place}: {_beside(*names)}")
  axes.set_xlabel("\n".join(texts), fontsize=6)


def _show(axes, picture, title, **options):
  axes.imshow(picture, **options)
  axes.set_title(title, fontsize=6, pad=2)
  axes.set_xticks([])
  axes.set_yticks([])


def _beside(true, guess):
  """'3', or '3 (5)' with a prediction."""
  return f"{true} ({guess})" if guess else str(true)


def _draw_regions(axes, masks, chosen, guess):
  """Outlines all regions thinly, chosen ones in their colour, guessed ones dashed."""
  size = masks.shape[-1]
  place = np.arange(-1, size + 1)
  for number, mask in enumerate(masks, 1):
    axes.contour(
      *(place, place, np.pad(mask.astype(float), 1), [0.5]),
      colors=chosen.get(number, LINE),
      linewidths=1.6 if number in chosen else 0.4,
      zorder=3 if number in chosen else 2,
    )
    if number in guess:
      axes.contour(
        *(place, place, np.pad(mask.astype(float), 1), [0.5]),
        colors=guess[number],
        linewidths=1.4,
        linestyles="dashed",
        zorder=4,
      )
  axes.set_xlim(-0.5, size - 0.5)
  axes.set_ylim(size - 0.5, -0.5)
