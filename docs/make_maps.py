"""Draws maps.jpg: where MoSI looks before a camera that stands still.

  python docs/make_maps.py RUN FOLDER NAME

Of every video below FOLDER whose file begins with NAME, the frame in the middle of the
clip in the middle: Grad-CAM of the odds that anything moves, of conv3 at 112 pixels,
and the outline of what is unlike the background, but no pixel of the video, which
others may not have allowed to copy.
"""

import io
import pathlib
import sys

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from motion_jax import evaluate
from motion_jax.data import open_source
from motion_jax.evaluation.explain import Viewer, clip_maps
from motion_jax.evaluation.measures import gradcam
from motion_jax.evaluation.measures.motion_share import unlike_background
from motion_jax.methods import make_method
from motion_jax.scale import sharding
from motion_jax.training import checkpoint, runs
from motion_jax.visualize.canvas import Canvas
from motion_jax.visualize.maps import overlay
from motion_jax.visualize.style import GREY

FILE = pathlib.Path(__file__).parent / "maps.jpg"
STAGE, SIZE = "conv3", 112
GAP, LABELS, TOP = 4, 84, 24
ROWS = {"trained": "trained", "random_init": "untrained"}


def main(run: str, folder: str, name: str, file: pathlib.Path = FILE) -> None:
  """Writes the picture."""
  viewers, config, mesh = networks(run)
  if viewers["trained"].still is None:
    sys.exit(f"{run}: no class stands still, so there are no odds that anything moves")
  source = open_source(folder, split="all")
  columns = []
  for seen in clip_maps(
    viewers, source, config, mesh, stage=STAGE, size=SIZE, with_background=True
  ):
    chosen, _ = unlike_background(seen.clips, seen.background)
    for row, position in enumerate(seen.positions):
      path = pathlib.PurePath(source.id_of(int(position)))
      if path.name.startswith(name):
        maps = {key: values[row] for key, values in seen.maps.items()}
        columns.append((path.parent.name, maps, chosen[row]))
  if not columns:
    sys.exit(f"no video below {folder} that can be decoded begins with {name!r}")
  draw(columns, file)


def networks(run: str) -> tuple[dict[str, Viewer], ConfigDict, jax.sharding.Mesh]:
  """The network of a run and the same untrained, its config, and a mesh."""
  run, step = runs.locate(run)
  config = ConfigDict(checkpoint.Checkpoints(run).config(step))
  mesh, method = sharding.make_mesh(), make_method(config)
  weights = {
    "trained": evaluate.load_weights(method, config, mesh, run, step),
    "random_init": jax.jit(method.init)(jax.random.key(config.seed)),
  }
  viewers = {
    key: Viewer(method.encoder(*each), method.classifiers(*each), method.still)
    for key, each in weights.items()
  }
  return viewers, config, mesh


def draw(
  columns: list[tuple[str, dict[str, np.ndarray], np.ndarray]], file: pathlib.Path
) -> None:
  """Writes a column for each clip: its title, its maps, bool [T, S, S] what moves."""
  pitch = SIZE + GAP
  canvas = Canvas(LABELS + len(columns) * pitch, TOP + len(ROWS) * pitch)
  for down, (key, text) in enumerate(ROWS.items()):
    y = TOP + down * pitch
    canvas.text(LABELS - 8, y + SIZE / 2, text, color=GREY, align="right")
    for across, (title, maps, chosen) in enumerate(columns):
      x = LABELS + across * pitch
      if down == 0:
        canvas.text(x + SIZE / 2, TOP / 2, title, width=SIZE)
      canvas.frame(picture(maps[key], chosen), x, y)
  png = io.BytesIO()
  canvas.save(png)
  options = dict(quality=88, subsampling=0, optimize=True, progressive=True)
  Image.open(png).convert("RGB").save(file, **options)


def picture(maps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
  """The middle one of maps [T, S, S], with the outline of what moves in it."""
  middle = len(maps) // 2
  shown = np.asarray(gradcam.normalize(maps[None, middle : middle + 1]))
  shown = overlay(np.zeros((*shown.shape, 3), np.uint8), shown, alpha=1.0)[0, 0]
  found, _ = cv2.findContours(
    chosen[middle].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
  )
  return cv2.drawContours(np.ascontiguousarray(shown), found, -1, (255, 255, 255), 1)


if __name__ == "__main__":
  if len(sys.argv) != 4:
    sys.exit(__doc__)
  main(*sys.argv[1:])
