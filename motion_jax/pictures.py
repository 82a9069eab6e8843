"""Pictures of what the encoder of a run has learned, on its own or on other videos."""

import logging
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import evaluate, logs
from motion_jax.config import UserError, choose
from motion_jax.data import open_source
from motion_jax.data.inputs import configured_sources, feature_views
from motion_jax.data.sources import Source
from motion_jax.data.subsets import subset_of_size
from motion_jax.evaluation.explain import ClipMaps, Viewer, clip_maps
from motion_jax.evaluation.feature_pictures import (
  Videos,
  save_clusters,
  save_retrieval,
  spread,
)
from motion_jax.evaluation.features import FeatureExtractor
from motion_jax.evaluation.measures import clusters, confusion, gradcam
from motion_jax.evaluation.measures.motion_share import MotionShares
from motion_jax.methods import make_method
from motion_jax.scale import sharding
from motion_jax.training import checkpoint, runs
from motion_jax.visualize import maps as map_pictures
from motion_jax.visualize.confusion import save_confusion

logger = logging.getLogger("motion_jax")

TRAINED, RANDOM = "trained", "random_init"
# All that a run of the command may write into its folder; what an earlier one has left
# there would be taken for this one's.
FILES = (
  "gradcam.png",
  "gradcam.gif",
  "attention.png",
  "attention.gif",
  "motion_share.json",
  "clusters.png",
  "clusters.gif",
  "tsne.png",
  "retrieval.png",
  "confusion.png",
)
_MISTAKES = 12  # listed beside the confusion matrix


def visualize(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Draws the run that `config.init_from` names; see configs/visualize.py.

  Args:
    config: `init_from`; `data` and `eval`, of which what is not None replaces the
      run's own; `pictures`.
    workdir: gets the folder pictures; those of an earlier call are removed.

  Returns:
    What motion_share.json holds: see `motion_share.MotionShares.result`.

  Raises:
    UserError: if there is no such run, no video, or scikit-learn is missing.
  """
  if not config.init_from:
    raise UserError("say what to draw: --config.init_from=runs/NAME")
  if jax.process_count() > 1:
    raise UserError("one process draws; start it on one host, without the others")
  options = config.pictures
  choose("pictures.stage", options.stage, gradcam.STAGES)
  _check(options)
  clusters.check_installed()
  run, step = runs.locate(config.init_from)
  stored = checkpoint.Checkpoints(run).config(step)
  heads = not stored.get(checkpoint.ENCODER_ONLY, False)
  asked, is_other = evaluate.with_changes(stored, config)
  mesh, method = sharding.make_mesh(), make_method(asked)
  viewers = {
    name: Viewer(
      method.encoder(*weights), method.classifiers(*weights) if heads else []
    )
    for name, weights in (
      (TRAINED, evaluate.load_weights(method, asked, mesh, run, step)),
      (RANDOM, jax.jit(method.init)(jax.random.key(asked.seed))),
    )
  }
  shown, gallery = _sources(asked, is_other, options.max_videos, config.seed)
  folder = workdir / "pictures"
  folder.mkdir(parents=True, exist_ok=True)
  for name in FILES:  # what others have put there stays
    (folder / name).unlink(missing_ok=True)
  values = save_maps(folder, viewers, shown, asked, mesh, options)
  values = {"init_from": str(config.init_from), "step": step, **values}
  logs.write_json(folder / "motion_share.json", values)
  _draw_features(folder, viewers[TRAINED].encoder, shown, gallery, asked, mesh, config)
  # The checkpoint of predictions.tsv is that of a finished training.
  latest, finished = runs.locate(run)[1], (run / "summary.json").exists()
  is_own = step == latest and finished and not is_other
  if is_own and "video_accuracy" in method.evaluators:
    _draw_confusion(folder, run / "predictions.tsv")
  logger.info("pictures in %s", folder)
  return values


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
    See `MotionShares.result`.

  Raises:
    UserError: if no video can be decoded.
  """
  has_classes = len(viewers[TRAINED].heads) > 0
  kind, name = ("Grad-CAM", "gradcam") if has_classes else ("attention", "attention")
  shares, examples, titles = MotionShares(share=options.moving), [], []
  wanted = spread(len(source), options.examples)
  size = max(config.method.size, options.smallest)
  with logs.progress_bar(len(source), "maps") as show:
    for seen in clip_maps(
      viewers, source, config, mesh, stage=options.stage, size=size
    ):
      shares.add(seen.maps, seen.speed)
      for row in np.flatnonzero(np.isin(seen.positions, wanted)):
        examples.append(_example(seen, row))
        titles.append(source.id_of(int(seen.positions[row])))
      show(int(seen.positions.max(initial=-1)) + 1)
  values = shares.result()
  if not examples:
    raise UserError(f"{source.name}: none of the videos to be drawn can be decoded")
  names = "clip", f"{kind}\n{options.stage}", f"{kind}\nuntrained", "flow\nmagnitude"
  rows = dict(zip(names, map(np.stack, zip(*examples, strict=True)), strict=True))
  map_pictures.save_map_grid(folder / f"{name}.png", rows, titles)
  map_pictures.save_map_gif(folder / f"{name}.gif", rows)
  if values["clips"]:
    logger.info("%s", share_text(values, kind, options.moving))
  else:
    logger.warning("nothing moves in these clips: no share of the maps is measured")
  return values


def share_text(values: dict[str, float], kind: str, moving: float) -> str:
  """The shares of `MotionShares.result` as lines for the console."""
  lines = [
    f"{kind} mass in the {moving:.0%} of each frame's pixels that move fastest, mean "
    f"of {values['clips']} clips ({values['still_clips']} still clips and "
    f"{values['empty_maps']} with an empty map do not count)"
  ]
  for name, text in ((TRAINED, "trained"), (RANDOM, "random initialisation")):
    share, place, gain, error = (
      values[name + key] for key in ("", "/position", "/gain", "/gain_error")
    )
    lines.append(
      f"  {text:24s}{share:.3f}  (its mean map {place:.3f}, gain {gain:+.3f} +- "
      f"{error:.3f})"
    )
  lines.append(f"  {'the same everywhere':24s}{moving:.3f}")
  return "\n".join(lines)


def _example(seen: ClipMaps, row: int) -> list[np.ndarray]:
  """The pictures [T, S, S, 3] uint8 of a clip: itself, maps of both networks, speed."""
  clip = seen.clips[row]
  maps = (
    np.asarray(gradcam.normalize(seen.maps[name][row][None])[0])
    for name in (TRAINED, RANDOM)
  )
  speed = map_pictures.speed_pictures(seen.speed[row][None])[0]
  return [clip, *(map_pictures.overlay(clip, each) for each in maps), speed]


def _sources(config, is_other: bool, limit: int, seed: int) -> tuple[Source, Source]:
  """What is shown, and where its neighbours are searched: perhaps the same."""
  data = config.data
  if is_other and data.name == "folder" and not data.heldout_list:
    source = open_source(data.path, split="all", frame_folders=data.frame_folders)
    return (subset_of_size(source, limit, seed=seed),) * 2
  sources = configured_sources(data)
  parts = (sources.heldout, sources.train)
  return tuple(subset_of_size(source, limit, seed=seed) for source in parts)


def _draw_features(folder, encoder, shown, gallery, config, mesh, asked) -> None:
  extract = FeatureExtractor(encoder, config, mesh, config.eval.batch_size)
  views = feature_views(config)
  config = config.copy_and_resolve_references()
  config.eval.clips = 1
  example = feature_views(config)

  def videos(source: Source) -> Videos:
    (found,) = extract([encoder], source, views, threads=config.data.threads)
    lost = len(source) - len(found.labels)
    if lost:
      logger.warning("%d of %d videos are left out: damaged", lost, len(source))
    return Videos(source, found, example)

  options, drawn = asked.pictures, videos(shown)
  searched = drawn if gallery is shown else videos(gallery)
  examples = options.cluster_examples
  save_clusters(folder, drawn, options.clusters, examples, seed=asked.seed)
  save_retrieval(folder, drawn, searched, options.queries)


def _draw_confusion(folder: pathlib.Path, path: pathlib.Path) -> None:
  if not path.exists():
    logger.warning("no confusion.png: %s is missing; train to the end", path)
    return
  classes, labels, predicted = confusion.read_predictions(path)
  matrix = confusion.confusion_matrix(labels, predicted, len(classes))
  mistakes = confusion.most_confused(matrix, _MISTAKES)
  save_confusion(folder / "confusion.png", matrix, classes, mistakes)


def _check(options: ConfigDict) -> None:
  for name in ("smallest", "examples", "clusters", "cluster_examples", "queries"):
    if options[name] < 1:
      raise UserError(f"pictures.{name}={options[name]} must be at least 1")
  if not 0 < options.moving < 1 or options.max_videos < 0:
    raise UserError(
      f"pictures.moving={options.moving} must be in (0, 1) and pictures.max_videos="
      f"{options.max_videos} 0 (all) or more"
    )
