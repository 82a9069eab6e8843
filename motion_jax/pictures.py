"""Pictures of what the encoder of a run has learned, on its own or on other videos."""

import dataclasses
import logging
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import checkpoint, evaluate, logs, sharding
from motion_jax.checkpoint import Checkpoints
from motion_jax.config import UserError, choose
from motion_jax.data import open_source
from motion_jax.data.inputs import configured_sources, feature_views
from motion_jax.data.sources import Source
from motion_jax.data.subsets import subset_of_size
from motion_jax.downstream import explain
from motion_jax.downstream.feature_pictures import FeaturePictures, spread
from motion_jax.downstream.features import FeatureExtractor, Features
from motion_jax.evaluation import clusters, confusion, gradcam
from motion_jax.evaluation.motion_share import MotionShares
from motion_jax.methods import make_method
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
  run, step = checkpoint.locate(config.init_from)
  stored = ConfigDict(Checkpoints(run).config(step))
  mesh, method = sharding.make_mesh(), make_method(stored)
  weights = {
    TRAINED: evaluate.restored(method, stored, mesh, run, step),
    RANDOM: jax.jit(method.init)(jax.random.key(stored.seed)),
  }
  heads = not stored.get(checkpoint.ENCODER_ONLY, False)
  viewers = {
    name: explain.make_viewer(method, *arrays, heads=heads)
    for name, arrays in weights.items()
  }
  stored, is_other = evaluate.overlaid(stored, config)
  videos = _videos(stored, is_other, options.max_videos, config.seed)
  folder = _emptied(workdir / "pictures")
  values = save_maps(folder, viewers, videos.shown, stored, mesh, options)
  values = {"init_from": str(config.init_from), "step": step, **values}
  logs.write_json(folder / "motion_share.json", values)
  _draw_features(folder, viewers[TRAINED].encoder, videos, stored, mesh, config)
  # The checkpoint of predictions.tsv is that of a finished training.
  latest, finished = checkpoint.locate(run)[1], (run / "summary.json").exists()
  tested = stored.method.name == "classify" and step == latest and finished
  if tested and not is_other:
    _draw_confusion(folder, run / "predictions.tsv")
  logger.info("pictures in %s", folder)
  return values


def save_maps(
  folder: pathlib.Path,
  viewers: dict[str, explain.Viewer],
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
    config: see `explain.look`.
    mesh: from `sharding.make_mesh`.
    options: section `pictures` of configs/visualize.py.

  Returns:
    See `MotionShares.result`.

  Raises:
    UserError: if no video can be decoded.
  """
  shares, examples = MotionShares(share=options.moving), []
  wanted = spread(len(source), options.examples)
  size = max(config.method.size, options.smallest)
  with logs.progress_bar(len(source), "maps") as show:
    for seen in explain.look(
      viewers, source, config, mesh, stage=options.stage, size=size
    ):
      shares.add(seen.maps, seen.speed)
      for row in np.flatnonzero(np.isin(seen.positions, wanted)):
        examples.append(_example(seen, row))
      show(int(seen.positions.max(initial=-1)) + 1)
  values = shares.result()
  if not examples:
    raise UserError(f"{source.name}: none of the videos to be drawn can be decoded")
  has_classes = len(viewers[TRAINED].heads) > 0
  kind, name = ("Grad-CAM", "gradcam") if has_classes else ("attention", "attention")
  rows = {
    "clip": np.stack([e.clip for e in examples]),
    f"{kind}\n{options.stage}": np.stack([e.maps[TRAINED] for e in examples]),
    f"{kind}\nuntrained": np.stack([e.maps[RANDOM] for e in examples]),
    "flow\nmagnitude": np.stack([e.speed for e in examples]),
  }
  titles = [source.id_of(e.position) for e in examples]
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


def _emptied(folder: pathlib.Path) -> pathlib.Path:
  """Makes the folder; what others have put there stays."""
  folder.mkdir(parents=True, exist_ok=True)
  for name in FILES:
    (folder / name).unlink(missing_ok=True)
  return folder


@dataclasses.dataclass(frozen=True)
class _Example:
  """One clip, as pictures [T, S, S, 3] uint8."""

  position: int
  clip: np.ndarray
  maps: dict[str, np.ndarray]
  speed: np.ndarray


def _example(seen: explain.Looks, row: int) -> _Example:
  clip = seen.clips[row]
  maps = {
    name: map_pictures.overlay(
      clip, np.asarray(gradcam.normalize(values[row][None])[0])
    )
    for name, values in seen.maps.items()
  }
  speed = map_pictures.speed_pictures(seen.speed[row][None])[0]
  return _Example(int(seen.positions[row]), clip, maps, speed)


@dataclasses.dataclass(frozen=True)
class _Videos:
  """What is shown, and where its neighbours are searched: perhaps the same."""

  shown: Source
  gallery: Source


def _videos(config: ConfigDict, is_other: bool, limit: int, seed: int) -> _Videos:
  data = config.data
  if is_other and data.name == "folder" and not data.heldout_list:
    source = open_source(data.path, split="all", frame_folders=data.frame_folders)
    source = subset_of_size(source, limit, seed=seed)
    return _Videos(source, source)
  sources = configured_sources(data)
  parts = (sources.heldout, sources.train)
  return _Videos(*(subset_of_size(source, limit, seed=seed) for source in parts))


def _draw_features(folder, encoder, videos: _Videos, config, mesh, asked) -> None:
  extract = FeatureExtractor(encoder, config, mesh, config.eval.batch_size)
  views = feature_views(config)

  def features(source: Source) -> Features:
    (found,) = extract([encoder], source, views, threads=config.data.threads)
    lost = len(source) - len(found.labels)
    if lost:
      logger.warning("%d of %d videos are left out: damaged", lost, len(source))
    return found

  shown = features(videos.shown)
  gallery = shown if videos.gallery is videos.shown else features(videos.gallery)
  config = config.copy_and_resolve_references()
  config.eval.clips = 1
  example = feature_views(config)
  pictures = FeaturePictures(folder, videos.shown, shown, example, seed=asked.seed)
  options = asked.pictures
  pictures.save_clusters(options.clusters, options.cluster_examples)
  pictures.save_retrieval(videos.gallery, gallery, options.queries)


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
