"""Pictures of what the encoder of a run has learned, on its own or on other videos."""

import logging
import pathlib

import jax
from ml_collections import ConfigDict

from motion_jax import evaluate, logs
from motion_jax.config import UserError, choose
from motion_jax.data import open_source
from motion_jax.data.inputs import configured_sources, feature_views
from motion_jax.data.sources import Source
from motion_jax.data.subsets import subset_of_size
from motion_jax.evaluation.explain import Viewer
from motion_jax.evaluation.feature_pictures import Videos, save_clusters, save_retrieval
from motion_jax.evaluation.features import FeatureExtractor
from motion_jax.evaluation.map_pictures import RANDOM, TRAINED, save_maps
from motion_jax.evaluation.measures import clusters, confusion
from motion_jax.methods import make_method
from motion_jax.models.stages import STAGES
from motion_jax.scale import sharding
from motion_jax.training import checkpoint, runs
from motion_jax.visualize.confusion import save_confusion

logger = logging.getLogger("motion_jax")

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
CLASS, MOTION = "class", "motion"
_MISTAKES = 12  # listed beside the confusion matrix


def visualize(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Draws the run that `config.init_from` names; see configs/visualize.py.

  Args:
    config: `init_from`; `data` and `eval`, of which what is not None replaces the
      run's own; `pictures`.
    workdir: gets the folder pictures; those of an earlier call are removed.

  Returns:
    What motion_share.json holds: see `map_pictures.save_maps`.

  Raises:
    UserError: if there is no such run, no video, or scikit-learn is missing.
  """
  if not config.init_from:
    raise UserError("say what to draw: --config.init_from=runs/NAME")
  if jax.process_count() > 1:
    raise UserError("one process draws; start it on one host, without the others")
  options = config.pictures
  choose("pictures.stage", options.stage, STAGES)
  choose("pictures.explains", options.explains, ("", CLASS, MOTION))
  _check(options)
  clusters.check_installed()
  run, step = runs.locate(config.init_from)
  stored = checkpoint.Checkpoints(run).config(step)
  heads = not stored.get(checkpoint.ENCODER_ONLY, False)
  asked, is_other = evaluate.with_changes(stored, config)
  mesh, method = sharding.make_mesh(), make_method(asked)
  still = method.still if heads and options.explains != CLASS else None
  if options.explains == MOTION and still is None:
    raise UserError(
      "pictures.explains='motion' is the odds of any motion against a class that "
      f"stands still; {run} ({asked.method.name}) has none"
    )
  viewers = {
    name: Viewer(
      method.encoder(*weights), method.classifiers(*weights) if heads else [], still
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


def _sources(config, is_other: bool, limit: int, seed: int) -> tuple[Source, Source]:
  """What is shown, and where its neighbours are searched: perhaps the same."""
  data = config.data
  lists = data.train_list or data.heldout_list
  if is_other and data.name == "folder" and not lists:
    source = open_source(data.path, split="all", frame_folders=data.frame_folders)
    return (subset_of_size(source, limit, seed=seed),) * 2
  sources = configured_sources(data)
  parts = (sources.heldout, sources.train)
  return tuple(subset_of_size(source, limit, seed=seed) for source in parts)


def _draw_features(folder, encoder, shown, gallery, config, mesh, asked) -> None:
  extract = FeatureExtractor(encoder, config, mesh, config.eval.batch_size)
  views = feature_views(config)
  config = config.copy_and_resolve_references()
  config.eval.clips = 1  # shown larger than the network sees them
  config.method.size = max(config.method.size, asked.pictures.smallest)
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
