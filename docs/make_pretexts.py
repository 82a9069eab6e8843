"""Draws pretexts.jpg beside it: the three pretext tasks, on an embedded video.

  python docs/make_pretexts.py

Texts are large enough to be read where the README is shown 900 pixels wide.
"""

import io
import pathlib

import jax
import numpy as np
from PIL import Image

from motion_jax.data import open_source
from motion_jax.data.clips import Views
from motion_jax.ops import motion_inputs, partition, pseudo_motion, statistics
from motion_jax.ops.motion_statistics import motion_boundaries
from motion_jax.visualize.canvas import Canvas
from motion_jax.visualize.modist import motion_pictures
from motion_jax.visualize.statistics import (
  CALM,
  LINE,
  STRONG,
  grey,
  inner_pixel,
  outline,
)
from motion_jax.visualize.style import GREY

OUT = pathlib.Path(__file__).with_name("pretexts.jpg")
VIDEO = "test/separate_0108"
SIDE, FRAMES = 128, 16  # of the clips; the embedded videos are as large
# In pixels: between frames, around all, between the halves of four frames, per method.
GAP, MARGIN, MIDDLE, BAND = 8, 16, 40, 246
HALF = 4 * SIDE + 3 * GAP
LEFT, RIGHT = MARGIN, MARGIN + HALF + MIDDLE
SIZE = RIGHT + HALF + MARGIN, 3 * BAND
TOP, ABOVE, BELOW = 78, 64, 224  # of a band's frames and of the texts around them
MOSI_KEY, MOSI_CLASSES = 3, (1, 4)  # with clear colours
WAYS = ("right", "down right", "down", "down left")
WAYS += ("left", "up left", "up", "up right")  # of 45 degrees each, as MAS counts them


def main(path: pathlib.Path = OUT) -> None:
  """Writes the picture."""
  canvas, clip = Canvas(*SIZE), video(VIDEO, frames=FRAMES + 1, interval=2)
  draw_mosi(canvas, 0)
  draw_modist(canvas, BAND, clip)
  draw_mas(canvas, 2 * BAND, clip[:, 1:])
  png = io.BytesIO()
  canvas.save(png)
  options = dict(quality=88, subsampling=0, optimize=True, progressive=True)
  Image.open(png).convert("RGB").save(path, **options)


def draw_mosi(canvas: Canvas, top: int) -> None:
  """Two of the clips that MoSI makes of a frame, with their labels."""
  text = "a window slides over an image, behind a static mask: which way, how fast?"
  _heading(canvas, top, "MoSI", text)
  image = video(VIDEO, frames=1, interval=1, side=240)[:, 0]
  extent, pool = np.array([image.shape[1:3]], np.int32), pseudo_motion.label_pool(2)
  key = jax.random.key(MOSI_KEY)
  draws = pseudo_motion.draw(key, extent, pool, size=SIDE, frames=FRAMES)
  clips = pseudo_motion.render(image, extent, draws, size=SIDE, mean=0.0, std=1.0)
  clips = np.rint(255 * np.clip(clips[0], 0, 1)).astype(np.uint8)
  for left, label in zip((LEFT, RIGHT), MOSI_CLASSES, strict=True):
    box = np.asarray(draws.box[0, label])
    _frames(canvas, left, top, clips[label], box)
    way = pool.speeds[label] / abs(pool.speeds[label]).max()
    name = WAYS[round(np.arctan2(*way[::-1]) / (np.pi / 4)) % 8]
    pace = "fast" if abs(pool.speeds[label]).max() > 1 else "slow"
    text = f"class {label}: {name}, {pace}"
    canvas.arrow(left + 14, top + BELOW, *(26 * way), width=5)
    canvas.text(left + 38, top + BELOW, text, size=13, align="left")


def draw_modist(canvas: Canvas, top: int, clip: np.ndarray) -> None:
  """A clip beside the edges of its flow."""
  text = "features of a video's RGB and motion clips are to agree, other videos' not"
  _heading(canvas, top, "MoDist", text)
  pairs = np.stack([clip[:, 1:], clip[:, :-1]], 2)
  box = np.array([[0, 0, SIDE, SIDE]], np.int32)
  edges = motion_inputs.computed_motion(pairs, box[:, 2:], box, kind="edges", size=SIDE)
  for left, shown, text in (
    (LEFT, clip[0, 1:], "RGB clip"),
    (RIGHT, motion_pictures(np.asarray(edges[0]), "edges"), "edges of its flow"),
  ):
    _frames(canvas, left, top, shown)
    canvas.text(left, top + BELOW, text, size=13, align="left")


def draw_mas(canvas: Canvas, top: int, clip: np.ndarray) -> None:
  """The regions and directions that are the labels of a clip."""
  text = (
    "where do flow (u right, v down) and colour change most, and in which direction?"
  )
  _heading(canvas, top, "MAS", text)
  pairs = np.stack([clip[:, :-1], clip[:, 1:]], 2)
  flow = motion_inputs.flow_of_pairs(pairs, np.array([[SIDE, SIDE]], np.int32))
  boundaries = np.hypot(*np.moveaxis(np.asarray(motion_boundaries(flow)[0][0]), 1, 0))
  values = statistics.clip_labels(clip, flow)[0][0]
  found = {
    (label.pattern, label.what, label.kind): int(value)
    for label, value in zip(statistics.label_table(FRAMES), values, strict=True)
  }
  places = [LEFT + column * (SIDE + GAP) for column in range(4)]
  places += [RIGHT + column * (SIDE + GAP) for column in range(4)]
  regions, frame = partition.by_pattern(SIDE), clip[0, FRAMES // 2]
  _panel(canvas, places[0], top, frame, "clip", "")
  panels = iter(places[1:])
  for side, strength in zip("uv", boundaries, strict=True):
    for pattern, masks in regions.items():
      place, way = (found[pattern, side, x] for x in ("location", "orientation"))
      left, texts = next(panels), (f"{side}, {pattern}", f"{place}, {WAYS[way - 1]}")
      _panel(canvas, left, top, grey(strength), *texts)
      _outline(canvas, left, top, masks, {place: STRONG})
      x, y = inner_pixel(masks[place - 1])
      angle = (way - 1) * np.pi / 4
      across, down = 40 * np.cos(angle), 40 * np.sin(angle)
      canvas.arrow(left + x, top + TOP + y, across, down, width=4)
  most, least = (found["grid", x, "location"] for x in ("diverse", "stable"))
  left = next(panels)
  _panel(canvas, left, top, frame, "colour, grid", f"{most}; least: {least}")
  _outline(canvas, left, top, regions["grid"], {most: STRONG, least: CALM})


def video(name: str, *, frames: int, interval: int, side: int = SIDE) -> np.ndarray:
  """The middle of an embedded video, [1, T, side, side, 3] uint8."""
  source = open_source("synthetic_actions", split="test")
  views = Views(1, frames, interval, fps=0, short_side=side, canvas=(side, side))
  index = [source.id_of(i) for i in range(len(source))].index(name)
  return views(source[index], None)["video"]


def _outline(canvas, left, top, masks, chosen):
  """Outlines all regions of a panel thinly, those chosen, from 1, in their colour."""
  for mask in masks:
    outline(canvas, left, top + TOP, mask, edgecolor=LINE, lw=0.8)
  for number, color in chosen.items():
    outline(canvas, left, top + TOP, masks[number - 1], edgecolor=color, lw=2.4)


def _heading(canvas, top, name, text):
  canvas.text(MARGIN, top + 30, name, size=19, align="left")
  canvas.text(MARGIN + 110, top + 32, text, size=14.5, align="left")


def _frames(canvas, left, top, clip, box=None):
  """Four frames of a clip, with the box (x, y, side) outlined."""
  for column, number in enumerate(np.linspace(0, len(clip) - 1, 4).round().astype(int)):
    x = left + column * (SIDE + GAP)
    _panel(canvas, x, top, clip[number], f"frame {number}", "")
    if box is not None:
      canvas.box(x + box[0], top + TOP + box[1], box[2], box[2])


def _panel(canvas, left, top, picture, above, below):
  canvas.frame(picture, left, top + TOP)
  canvas.text(left + SIDE / 2, top + ABOVE, above, size=12, color=GREY)
  canvas.text(left + SIDE / 2, top + BELOW, below, size=13)


if __name__ == "__main__":
  main()
