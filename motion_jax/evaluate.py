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

# Of `eval`, what scores of features depend on, in evaluation.json.
_SHOWN = ("groups", "stage", "mirrored")


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
    about = {"init_from": str(config.init_from)}
    sources = None if "protocol" in config else open_sources(asked.data)
    reason = "other data than the run's" if is_other else "the run has no pretext head"
    alone |= is_other
    if alone:
      logger.info("%s: only its encoder is evaluated", reason)
  mesh, method = sharding.make_mesh(), make_method(asked)
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
  about |= {key: asked.eval[key] for key in _SHOWN if asked.eval.get(key)}
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
    config: its sections `data` and `eval` replace the run's values but for None.
  """
  result = ConfigDict(stored)
  given = {name: value for name, value in config.data.items() if value is not None}
  is_other = bool({"name", "path"} & given.keys())
  if is_other:  # lists and subsets belong to the run's own data
    reset = dict(train_list="", heldout_list="", per_class=0, fraction=1.0, path="")
    given = {key: value for key, value in reset.items() if key in result.data} | given
    if given.get("path"):
      given.setdefault("name", "folder")
  result.data.update(given)
  defaults = {"linear": True, "max_videos": 0, **result.eval.to_dict()}
  result.eval.update({**defaults, "probe": True})
  changes = {k: v for k, v in config.eval.items() if v is not None}
  if changes.get("groups"):
    changes.setdefault("max_videos", 0)  # all of a group are compared with all others
  result.eval.update(changes)
  return result, is_other


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
