"""Pictures of where networks look, and the measure of it beside what moves."""

import logging
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.config import UserError
from motion_jax.data.sources import Source
from motion_jax.evaluation.explain import ClipMaps, Viewer, clip_maps
from motion_jax.evaluation.feature_pictures import spread
from motion_jax.evaluation.measures import gradcam
from motion_jax.evaluation.measures.motion_share import (
  MotionShares,
  moving_pixels,
  unlike_background,
)
from motion_jax.visualize import maps as map_pictures

logger = logging.getLogger("motion_jax")

TRAINED, RANDOM = "trained", "random_init"
# Maps of no network, beside which those of networks stand; the last is the thing that
# moves itself, as coarse as the maps of the stage.
FLAT, CENTRE, ITSELF = "flat", "centre", "itself"
_CENTRE_WIDTH = 0.25  # of the frame: standard deviation of the bell in the middle


def save_maps(
  folder: pathlib.Path,
  viewers: dict[str, Viewer],
  source: Source,
  config: ConfigDict,
  mesh: Mesh,
  options: ConfigDict,
) -> dict[str, float]:
  """Writes maps as PNG and GIF, and measures them against motion.

  Of networks with classes they are Grad-CAM, gradcam.png and gradcam.gif; of others
  attention.png and attention.gif.

  Args:
    folder: for the files.
    viewers: networks by name, 'trained' and 'random_init'.
    source: the videos.
    config: see `explain.clip_maps`.
    mesh: from `sharding.make_mesh`.
    options: section `pictures` of configs/visualize.py.

  Returns:
    See `MotionShares.result`: of the fastest pixels, and with `options.static_camera`
    under 'object/...' of what is unlike the background. Beside the networks stand maps
    that are the same everywhere, 'flat', or a bell in the middle, 'centre', and of
    objects 'itself', what is unlike the background in the cells of the stage: not the
    most that a map can have, which would lie in one cell.

  Raises:
    UserError: if no video can be decoded.
  """
  has_classes = len(viewers[TRAINED].heads) > 0
  kind, name = ("Grad-CAM", "gradcam") if has_classes else ("attention", "attention")
  if viewers[TRAINED].still is not None:
    kind = f"{kind} of motion"
  fastest, objects = MotionShares(), MotionShares()
  examples, titles = [], []
  wanted = spread(len(source), options.examples)
  with logs.progress_bar(len(source), "maps") as show:
    for seen in clip_maps(
      viewers,
      source,
      config,
      mesh,
      stage=options.stage,
      size=max(config.method.size, options.smallest),
      with_background=options.static_camera,
    ):
      maps = seen.maps | _blind_maps(seen.speed.shape)
      fastest.add(maps, *moving_pixels(seen.speed, share=options.moving))
      if seen.background is not None:
        chosen, moves = unlike_background(seen.clips, seen.background)
        itself = _in_cells(chosen, seen.cells)
        objects.add(maps | {ITSELF: itself}, chosen, moves)
      for row in np.flatnonzero(np.isin(seen.positions, wanted)):
        shown = _example(seen, row, kind, options.stage)
        if seen.background is not None:
          shown["unlike\nbackground"] = _only(seen.clips[row], chosen[row])
        examples.append(shown)
        titles.append(source.id_of(int(seen.positions[row])))
      show(int(seen.positions.max(initial=-1)) + 1)
  if not examples:
    raise UserError(f"{source.name}: none of the videos to be drawn can be decoded")
  rows = {key: np.stack([each[key] for each in examples]) for key in examples[0]}
  map_pictures.save_map_grid(folder / f"{name}.png", rows, titles)
  map_pictures.save_map_gif(folder / f"{name}.gif", rows)
  values = fastest.result()
  where = f"the {options.moving:.0%} of each frame's pixels that move fastest"
  _tell(values, kind, where)
  if options.static_camera:
    found = objects.result()
    _tell(found, kind, "what is unlike the background")
    values |= {f"object/{key}": value for key, value in found.items()}
  return values


def share_text(values: dict[str, float], kind: str, where: str) -> str:
  """The shares of `MotionShares.result` as lines for the console."""
  lines = [
    f"{kind}: mass in {where}, mean of {values['clips']} clips "
    f"({values['still_clips']} still clips and {values['empty_maps']} with an empty "
    "map do not count)"
  ]
  for name, text in (
    (TRAINED, "trained"),
    (RANDOM, "random initialisation"),
    (FLAT, "the same everywhere"),
    (CENTRE, "a bell in the middle"),
    (ITSELF, "the things in its cells"),
  ):
    if name not in values:
      continue
    line = f"  {text:24s}{values[name]:.3f}"
    if f"{name}/gain" in values:
      place, gain, error = (
        values[f"{name}/{key}"] for key in ("position", "gain", "gain_error")
      )
      line += f"  (its mean map {place:.3f}, gain {gain:+.3f} +- {error:.3f})"
    lines.append(f"{line}; maximum inside {values[name + '/pointing']:.3f}")
  return "\n".join(lines)


def _tell(values, kind, where):
  if values["clips"]:
    logger.info("%s", share_text(values, kind, where))
  else:
    logger.warning("nothing moves in these clips: no share of the maps is measured")


def _blind_maps(shape) -> dict[str, np.ndarray]:
  """Maps [B, T, S, S] that know nothing of the clip."""
  place = np.linspace(-0.5, 0.5, shape[-1])
  bell = np.exp(-0.5 * (place / _CENTRE_WIDTH) ** 2)
  maps = {FLAT: np.ones(shape[-2:]), CENTRE: np.outer(bell, bell)}
  return {name: np.broadcast_to(each, shape) for name, each in maps.items()}


def _in_cells(chosen: np.ndarray, cells: tuple[int, int, int]) -> np.ndarray:
  """What the coarse map of bool [B, T, S, S] is once it is enlarged."""
  coarse = jax.image.resize(chosen.astype(np.float32), (len(chosen), *cells), "linear")
  enlarged = gradcam.upsample(coarse, chosen.shape[1:])
  return np.maximum(enlarged, np.finfo(np.float32).tiny)  # never an empty map


def _example(seen: ClipMaps, row: int, kind: str, stage: str) -> dict[str, np.ndarray]:
  """The pictures [T, S, S, 3] uint8 of a clip: itself, maps of both networks, speed."""
  clip = seen.clips[row]
  label = kind.replace(" of ", "\nof ")  # there is little room
  own, untrained = (
    np.asarray(gradcam.normalize(seen.maps[name][row][None])[0])
    for name in (TRAINED, RANDOM)
  )
  return {
    "clip": clip,
    f"{label}\n{stage}": map_pictures.overlay(clip, own),
    f"{label}\nuntrained": map_pictures.overlay(clip, untrained),
    "flow\nmagnitude": map_pictures.speed_pictures(seen.speed[row][None])[0],
  }


def _only(clip: np.ndarray, chosen: np.ndarray) -> np.ndarray:
  """The pictures of a clip [T, S, S, 3], dark but for chosen pixels [T, S, S]."""
  return np.where(chosen[..., None], clip, clip // 4)
