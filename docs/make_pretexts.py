"""Draws pretexts.jpg and pretexts.gif: the three pretext tasks, on an embedded video.

  python docs/make_pretexts.py

Texts are large enough to be read where a page shows the pictures 830 pixels wide.
"""

import io
import pathlib
from collections.abc import Iterator

import cv2
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

FOLDER = pathlib.Path(__file__).parent
VIDEO = "test/separate_0108"
SIDE, FRAMES = 128, 16  # of the clips; the embedded videos are as large
# In pixels: between frames, around all, between the halves of four frames, per method.
GAP, MARGIN, MIDDLE, BAND = 8, 16, 40, 246
HALF = 4 * SIDE + 3 * GAP
LEFT, RIGHT = MARGIN, MARGIN + HALF + MIDDLE
SIZE = RIGHT + HALF + MARGIN, 3 * BAND
TOP, ABOVE, BELOW = 78, 64, 224  # of a band's frames and of the texts around them
# Of the moving picture: six panels beside each other, two for each method.
MOVING = 6 * SIDE + 3 * GAP + 2 * 20 + 2 * 2, 196
MOVING_TOP, MOVING_MS, COLOURS = 52, 140, 200
MOSI_KEY, MOSI_CLASSES = 3, (1, 4)  # with clear colours
WAYS = ("right", "down right", "down", "down left")
WAYS += ("left", "up left", "up", "up right")  # of 45 degrees each, as MAS counts them


def main(folder: pathlib.Path = FOLDER) -> None:
  """Writes both pictures."""
  canvas, clip = Canvas(*SIZE), video(VIDEO, frames=FRAMES + 1, interval=2)
  draw_mosi(canvas, 0)
  draw_modist(canvas, BAND, clip)
  draw_mas(canvas, 2 * BAND, clip[:, 1:])
  options = dict(quality=88, subsampling=0, optimize=True, progressive=True)
  _image(canvas).save(folder / "pretexts.jpg", **options)
  frames = [_few_colours(_image(canvas)) for canvas in moving(clip)]
  times = [MOVING_MS] * (FRAMES - 1) + [5 * MOVING_MS]
  options = dict(save_all=True, append_images=frames[1:], duration=times, loop=0)
  frames[0].save(folder / "pretexts.gif", optimize=True, **options)


def moving(clip: np.ndarray) -> Iterator[Canvas]:
  """What the three methods make, a frame after the other."""
  image, draws, clips = mosi_clips()
  label = MOSI_CLASSES[1]
  image = image[:, ::-1] if draws.flip[0] else image
  small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
  windows = np.asarray(draws.window[0, label]) * SIDE / len(image)
  box, seen = np.asarray(draws.box[0, label]), SIDE * SIDE / len(image)
  edges, (found, boundaries) = edges_of(clip), mas_labels(clip[:, 1:])
  masks = partition.by_pattern(SIDE)["grid"]
  place, way = (found["grid", "v", x] for x in ("location", "orientation"))
  most, least = (found["grid", x, "location"] for x in ("diverse", "stable"))
  for number in range(FRAMES):
    canvas = Canvas(*MOVING)
    lefts = [2 + n * (SIDE + GAP) + n // 2 * (20 - GAP) for n in range(6)]
    for name, left in zip(("MoSI", "MoDist", "MAS"), lefts[::2], strict=True):
      canvas.text(left, 14, name, size=13, align="left")
    frame = clip[0, 1 + number]
    for left, picture, text in zip(
      lefts,
      (small, clips[label, number], frame, edges[number], frame, grey(boundaries[1])),
      ("a window slides", "which way?", "RGB clip", "flow edges", "colour", "flow"),
      strict=True,
    ):
      canvas.text(left + SIDE / 2, MOVING_TOP - 12, text, size=9.5, color=GREY)
      canvas.frame(picture, left, MOVING_TOP)
    x, y = windows[number]
    canvas.box(lefts[0] + x, MOVING_TOP + y, seen, seen)
    canvas.box(lefts[1] + box[0], MOVING_TOP + box[1], box[2], box[2])
    top = MOVING_TOP - TOP
    _outline(canvas, lefts[4], top, masks, {most: STRONG, least: CALM})
    _outline(canvas, lefts[5], top, masks, {place: STRONG})
    _way(canvas, lefts[5], top, masks[place - 1], way)
    yield canvas


def mosi_clips() -> tuple:
  """(picture [H, W, 3], draws, clips [P, T, S, S, 3]) of MoSI."""
  image = video(VIDEO, frames=1, interval=1, side=240)[:, 0]
  extent, pool = np.array([image.shape[1:3]], np.int32), pseudo_motion.label_pool(2)
  key = jax.random.key(MOSI_KEY)
  draws = pseudo_motion.draw(key, extent, pool, size=SIDE, frames=FRAMES)
  clips = pseudo_motion.render(image, extent, draws, size=SIDE, mean=0.0, std=1.0)
  return image[0], draws, np.rint(255 * np.clip(clips[0], 0, 1)).astype(np.uint8)


def edges_of(clip: np.ndarray) -> np.ndarray:
  """Edges of the flow of a clip, [T - 1, S, S, 3]."""
  pairs = np.stack([clip[:, 1:], clip[:, :-1]], 2)
  box = np.array([[0, 0, SIDE, SIDE]], np.int32)
  edges = motion_inputs.computed_motion(pairs, box[:, 2:], box, kind="edges", size=SIDE)
  return motion_pictures(np.asarray(edges[0]), "edges")


def mas_labels(clip: np.ndarray) -> tuple[dict, np.ndarray]:
  """MAS's labels of a clip by (pattern, what, kind), and its boundaries [2, S, S]."""
  pairs = np.stack([clip[:, :-1], clip[:, 1:]], 2)
  flow = motion_inputs.flow_of_pairs(pairs, np.array([[SIDE, SIDE]], np.int32))
  boundaries = np.hypot(*np.moveaxis(np.asarray(motion_boundaries(flow)[0][0]), 1, 0))
  values = statistics.clip_labels(clip, flow)[0][0]
  return {
    (label.pattern, label.what, label.kind): int(value)
    for label, value in zip(statistics.label_table(FRAMES), values, strict=True)
  }, boundaries


def draw_mosi(canvas: Canvas, top: int) -> None:
  """Two of the clips that MoSI makes of a frame, with their labels."""
  text = "a window slides over an image, behind a static mask: which way, how fast?"
  _heading(canvas, top, "MoSI", text)
  pool, (_, draws, clips) = pseudo_motion.label_pool(2), mosi_clips()
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
  for left, shown, text in (
    (LEFT, clip[0, 1:], "RGB clip"),
    (RIGHT, edges_of(clip), "edges of its flow"),
  ):
    _frames(canvas, left, top, shown)
    canvas.text(left, top + BELOW, text, size=13, align="left")


def draw_mas(canvas: Canvas, top: int, clip: np.ndarray) -> None:
  """The regions and directions that are the labels of a clip."""
  text = (
    "where do flow (u right, v down) and colour change most, and in which direction?"
  )
  _heading(canvas, top, "MAS", text)
  found, boundaries = mas_labels(clip)
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
      _way(canvas, left, top, masks[place - 1], way)
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


def _way(canvas, left, top, mask, way):
  x, y = inner_pixel(mask)
  angle = (way - 1) * np.pi / 4
  across, down = 40 * np.cos(angle), 40 * np.sin(angle)
  canvas.arrow(left + x, top + TOP + y, across, down, width=4)


def _image(canvas):
  png = io.BytesIO()
  canvas.save(png)
  return Image.open(png).convert("RGB")


def _few_colours(image):
  return image.quantize(COLOURS, dither=Image.Dither.NONE)


if __name__ == "__main__":
  main()
