"""What an encoder is worth for pairs of actions (ASLAN) and for scenes (YUPENN).

As in MAS (Wang et al., CVPR 2019, sections 4.5 and 4.6): a video is the mean feature of
all its clips, each of which shares half its frames with the next, and linear SVMs stand
on it.
"""

import functools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from motion_jax import hosts, logs, sharding
from motion_jax.config import UserError, choose
from motion_jax.data import Source, open_source
from motion_jax.data.inputs import feature_views
from motion_jax.downstream.features import FeatureExtractor, Features
from motion_jax.evaluation import pairs, scenes
from motion_jax.methods import make_method
from motion_jax.trained_encoder import load_encoder

PROTOCOLS = ("aslan", "yupenn")


def evaluate_protocol(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Measures the encoder of a run beside its random initialisation.

  Args:
    config: `init_from`, `protocol`, and `data` and `eval`, of which what is not None
      replaces the run's own; see configs/evaluate.py.
    workdir: folder for the result, evaluation.json.

  Returns:
    Values of `measure`.

  Raises:
    UserError: if the run or the data set is missing or does not fit; the message has
      the fix.
  """
  if not config.init_from:
    raise UserError("say what to evaluate: --config.init_from=runs/NAME")
  given = {key: value for key, value in config.data.items() if value is not None}
  source = open_source(
    given.pop("name"), split="all", data_dir=given.pop("data_dir", None)
  )
  hosts.check_records((source,))
  trained = load_encoder(config.init_from)
  stored = trained.config
  stored.data.update(given)
  stored.eval.update({k: v for k, v in config.eval.items() if v is not None})
  modules = {"": trained.module, "random_init/": random_encoder(stored)}
  values = measure(config.protocol, modules, stored, source, cost=config.cost)
  path = workdir / "evaluation.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  about = {"init_from": str(config.init_from), "step": trained.step}
  logs.write_json(path, {**about, **values})
  logs.logger.info("%s\n  written to %s", logs.scores_text(values), path)
  return values


def random_encoder(config: ConfigDict) -> nnx.Module:
  """The network of a run with this config at random initialisation."""
  method = make_method(config)
  return method.encoder(*jax.jit(method.init)(jax.random.key(config.seed)))


def measure(
  protocol: str,
  modules: Mapping[str, nnx.Module],
  config: ConfigDict,
  source: Source,
  *,
  cost: float = 1.0,
) -> dict[str, float]:
  """Measures encoders of one structure by a protocol.

  Args:
    protocol: 'aslan' or 'yupenn'.
    modules: encoders in evaluation mode, by the prefix of their values.
    config: of their run; `data`, `method` and `eval` are read.
    source: all videos of the prepared data set.
    cost: C of the linear SVMs.

  Returns:
    {'eval/<prefix>aslan_accuracy', '..._accuracy_error', '..._auc'} or
    {'eval/<prefix>yupenn_accuracy'}, in [0, 1].

  Raises:
    UserError: if the encoder or the data do not fit the protocol.
  """
  score = {"aslan": _aslan, "yupenn": _yupenn}[choose("protocol", protocol, PROTOCOLS)]
  found = _features(modules, config, source)
  values = {}
  for prefix, features in zip(modules, found, strict=True):
    try:
      scores = score(features, source, cost)
    except UserError as error:
      raise UserError(f"{protocol} with this encoder: {error}") from error
    values |= {f"eval/{prefix}{protocol}_{k}": value for k, value in scores.items()}
  return values


def _features(modules, config, source) -> list[Features]:
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.data.sampler = "clip"
    config.eval.clips, config.eval.overlap = 0, 0.5
  extractor = FeatureExtractor(
    next(iter(modules.values())), config, sharding.make_mesh(), config.eval.batch_size
  )
  with logs.progress_bar(len(source), "features") as show:
    found = extractor(
      list(modules.values()),
      source,
      feature_views(config),
      threads=config.data.threads,
      on_batch=lambda batch: show(int(batch["index"].max()) + 1),
    )
  lost = sorted({*range(len(source))} - {*found[0].positions.tolist()})
  if lost:
    names = ", ".join(source.id_of(position) for position in lost[:5])
    logs.logger.warning("%d videos do not count: damaged: %s", len(lost), names)
  return found


def _aslan(found: Features, source: Source, cost: float) -> dict[str, float]:
  if "pairs" not in source.notes:
    raise UserError(f"{source.name} holds no pairs; delete it and prepare it again")
  rows = {source.id_of(place): row for row, place in enumerate(found.positions)}
  usable = [pair for pair in source.notes["pairs"] if {*pair[:2]} <= rows.keys()]
  if len(usable) < len(source.notes["pairs"]):
    total = len(source.notes["pairs"])
    logs.logger.warning("%d of %d pairs count", len(usable), total)
  if not usable:
    raise UserError(f"no pair of {source.name} has both videos")
  lengths = np.linalg.norm(found.features, axis=1, keepdims=True)
  features = found.features / np.maximum(lengths, 1e-12)
  one, other = (features[[rows[pair[side]] for pair in usable]] for side in (0, 1))
  same, folds = (np.asarray([pair[place] for pair in usable]) for place in (2, 3))
  return pairs.pair_scores(pairs.pair_measures(one, other), same, folds, cost=cost)


def _yupenn(found: Features, source: Source, cost: float) -> dict[str, float]:
  with logs.progress_bar(len(found.labels), "videos left out") as show:
    score = functools.partial(scenes.leave_one_out_accuracy, cost=cost, show=show)
    return {"accuracy": score(found.features, found.labels)}
