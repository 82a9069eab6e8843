"""Evaluates a run: `config.mode = 'evaluate'`."""

import logging
import pathlib

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.config import UserError, choose, completed, difference
from motion_jax.data import open_source
from motion_jax.evaluation.ava_results import evaluate_results
from motion_jax.evaluation.evaluators import make_evaluators
from motion_jax.evaluation.parts import remove_unfinished
from motion_jax.evaluation.protocols import PROTOCOLS
from motion_jax.evaluation.retrieval import Retrieval
from motion_jax.methods import make_method
from motion_jax.scale import hosts, sharding
from motion_jax.training import runs, state
from motion_jax.training.checkpoint import ENCODER_ONLY, Checkpoints
from motion_jax.training.records import open_sources, with_records

logger = logging.getLogger("motion_jax")


def evaluate(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Runs the evaluators that a config asks for; writes evaluation.json to `workdir`.

  Args:
    config: of a training, whose run is `workdir`; its data and eval may be others. Or
      of configs/evaluate.py: of the run that `init_from` names, by the config stored
      with it, of which `data` and `eval` replace what is not None. On the run's own
      data all that its training measures, and its encoder; on other data, or by a
      `protocol`, the encoder alone. Or a file of detections, `results`.
    workdir: folder for the result.

  Returns:
    {'eval/<name>': value}.

  Raises:
    UserError: if nothing can be evaluated; the message says why.
  """
  if "results" in config:
    return evaluate_results(config, workdir)
  is_own = "method" in config
  if not is_own and not config.init_from:
    raise UserError("say what to evaluate: --config.init_from=runs/NAME")
  run, step = runs.locate(workdir if is_own else config.init_from)
  stored = Checkpoints(run).config(step)
  alone = stored.get(ENCODER_ONLY, False)
  if is_own:
    sources = open_sources(config.data)
    asked, about = with_records(config, sources), {}
    _check_same_method(stored, asked, workdir)
  else:
    asked, is_other = with_changes(stored, config)
    if config.seed is not None:
      asked.seed = config.seed
    given = {"data": _given(config.data), **_given(config.eval)}
    about = {"init_from": str(config.init_from), **given}
    sources = None if "protocol" in config else open_sources(asked.data)
    reason = "other data than the run's" if is_other else "the run has no pretext head"
    alone |= is_other
    if alone:
      logger.info("%s: only its encoder is evaluated", reason)
  mesh, method = sharding.make_mesh(), make_method(asked)
  classifies = not alone and "video_accuracy" in method.evaluators
  if about.get("place_scores") and not classifies:
    raise UserError(
      "eval.place_scores is of classifiers, on the data that they were trained on; "
      "leave it out"
    )
  if "protocol" in config:
    make = PROTOCOLS[choose("config.protocol", config.protocol, [*PROTOCOLS])]
    videos = _all_videos(config.data)
    evaluators = [make(method, asked, videos, mesh, workdir, cost=config.cost)]
  elif alone:
    evaluators = [Retrieval(method, asked, sources, mesh, workdir)]
  else:
    evaluators = make_evaluators(method, asked, sources, mesh, workdir)
  weights = load_weights(method, asked, mesh, run, step)
  values = {}
  for evaluator in evaluators:
    values |= evaluator(*weights)
  path = workdir / "evaluation.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  logs.write_json(path, {"step": step, **about, **values})
  remove_unfinished(workdir)
  logger.info("step %d\n%s\n  written to %s", step, logs.scores_text(values), path)
  return values


def load_weights(method, config: ConfigDict, mesh: Mesh, run: pathlib.Path, step: int):
  """Returns (params, aux) of a checkpoint of `run`, placed on the mesh."""
  weights = state.initial_weights(method, jax.random.key(config.seed), mesh)
  return Checkpoints(run).restore_weights(step, *weights)


def with_changes(stored: dict, config: ConfigDict) -> tuple[ConfigDict, bool]:
  """A run's config with what another one says; whether that names other data.

  Args:
    stored: of the run.
    config: its sections `data` and `eval` replace the run's values but for None. Of
      other data all is measured, by a linear classifier, too, unless it says
      otherwise: limits of the run are for its own data.
  """
  result = ConfigDict(stored)
  given = _given(config.data)
  is_other = bool({"name", "path"} & given.keys())
  if is_other:  # lists and subsets belong to the run's own data
    reset = dict(train_list="", heldout_list="", per_class=0, fraction=1.0, path="")
    given = {key: value for key, value in reset.items() if key in result.data} | given
    if given.get("path"):
      given.setdefault("name", "folder")
  result.data.update(given)
  defaults = {"linear": True, "max_videos": 0, **result.eval.to_dict()}
  result.eval.update({**defaults, "probe": True})
  changes = _given(config.eval)
  if is_other:
    result.eval.linear = True
  if is_other or changes.get("groups"):  # all of a group are compared with all others
    result.eval.max_videos = 0
  result.eval.update(changes)
  return result, is_other


def _given(section):
  return {name: value for name, value in section.items() if value is not None}


def _check_same_method(stored, config, workdir):
  if stored.get(ENCODER_ONLY):
    raise UserError(
      f"{workdir} holds an encoder without its pretext head; what the encoder is worth "
      f"is told by --config=configs/evaluate.py --config.init_from={workdir}"
    )
  current = completed(config.to_dict())
  for section in ("method", "model"):
    rows = difference(stored[section], current[section], f"{section}.")
    if rows:
      raise UserError(f"{workdir} was trained with another config: {'; '.join(rows)}")


def _all_videos(config):
  source = open_source(config.name, split="all", data_dir=config.data_dir)
  hosts.check_records((source,))
  return source
