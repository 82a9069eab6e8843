"""Evaluations of a run: its method's held-out metrics, video accuracy, its encoder."""

import logging
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import checkpoint, logs, sharding, starting_point, state
from motion_jax.checkpoint import Checkpoints
from motion_jax.config import UserError, difference
from motion_jax.data import pipeline
from motion_jax.data.inputs import configured_source, heldout_sampler, test_views
from motion_jax.data.labels import common_classes
from motion_jax.evaluation.views import VideoScores
from motion_jax.methods import make_method
from motion_jax.probe import EncoderProbe, pretraining_probe

logger = logging.getLogger("motion_jax")


class HeldOut:
  """Evaluates a method on held-out sources, always the same ones in the same order.

  Args:
    method: see `methods.base.Method`.
    config: a whole config; its sections `data` and `eval` are read.
    mesh: from `sharding.make_mesh`.
    bad_files: text file that gets the names of files that cannot be decoded.
  """

  def __init__(self, method, config: ConfigDict, mesh: Mesh, bad_files: pathlib.Path):
    self._source = configured_source(config.data, "heldout")
    self._sampler = heldout_sampler(config)
    self._bad_files = pipeline.BadFiles(
      self._source, bad_files, max_fraction=config.data.max_bad_fraction
    )
    self._config = config
    self._mesh = mesh
    self.predict = state.make_predict(method, mesh)
    self._metrics = method.metrics
    sharding.check_batch_size(
      "eval.batch_size", config.eval.batch_size, mesh.size, "the number of devices"
    )

  def __len__(self) -> int:
    limit = max(0, self._config.eval.max_sources) or len(self._source)
    return min(limit, len(self._source))

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/<metric>': mean over all valid held-out examples}."""
    collected = self._metrics.empty()
    for batch in pipeline.evaluation_batches(
      self._source,
      self._sampler,
      batch_size=self._config.eval.batch_size,
      seed=self._config.seed,
      limit=len(self),
      threads=self._config.data.threads,
    ):
      self._bad_files.update(batch)
      rows = sharding.shard_batch(self._mesh, batch)
      outputs = self.predict(params, aux, rows)
      collected = collected.merge(self._metrics.single_from_model_output(**outputs))
    values = jax.device_get(collected.compute())
    return {f"eval/{name}": float(value) for name, value in values.items()}


class VideoTest:
  """Accuracy of a classifier over held-out videos: `eval.clips` times `eval.crops`.

  The score of a video is the mean softmax over its views. `predictions.tsv` gets a line
  with the true and the predicted class of every video.

  Args:
    predict: jitted; of its outputs, `probabilities` are used.
    config: a whole config.
    mesh: from `sharding.make_mesh`.
    workdir: of the run.
  """

  def __init__(self, predict, config: ConfigDict, mesh: Mesh, workdir: pathlib.Path):
    self._source = configured_source(config.data, "heldout")
    self._views = test_views(config)
    self._config, self._mesh, self._workdir = config, mesh, workdir
    self._predict = predict

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/top1': share of the videos, 'eval/top5': ...}, in [0, 1]."""
    config, source = self._config, self._source
    scores = VideoScores(len(source), config.method.classes)
    with logs.progress_bar(len(source), "testing") as show:
      for batch in pipeline.evaluation_batches(
        source,
        self._views,
        batch_size=config.eval.batch_size,
        seed=0,
        threads=config.data.threads,
      ):
        rows = sharding.shard_batch(self._mesh, batch)
        found = self._predict(params, aux, rows)["probabilities"]
        scores.add(batch["index"], batch["valid"], jax.device_get(found))
        show(int(batch["index"].max()) + 1)
    labels = np.asarray(source.labels)
    self._write(scores)
    return {f"eval/top{k}": scores.accuracy(labels, k) for k in (1, 5)}

  def _write(self, scores):
    source, best = self._source, scores.probabilities()
    lines = ["video\tclass\tpredicted\tprobability"]
    for index in np.flatnonzero(scores.seen()):
      guess = int(best[index].argmax())
      true = source.classes[source.labels[index]]
      cells = (source.id_of(index), true, source.classes[guess])
      lines.append("\t".join((*cells, f"{best[index, guess]:.4f}")))
    text = "\n".join(lines) + "\n"
    path = self._workdir / "predictions.tsv"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


def final_test(held_out: HeldOut, method, config, mesh: Mesh, workdir: pathlib.Path):
  """The test at the end of a training: (params, aux) -> {'eval/<name>': value}.

  Of a classifier the accuracy over videos; of a pretraining what the encoder is worth
  beside its random initialisation, or None when the data have no labels.
  """
  if config.method.name == "classify":
    return VideoTest(held_out.predict, config, mesh, workdir)
  return pretraining_probe(method, config, mesh)


def resolved(config: ConfigDict) -> ConfigDict:
  """A copy of a config with `method.classes`, if it has that, set from its data set.

  Raises:
    UserError: if labels are missing or do not fit; see `data.labels.common_classes`.
  """
  config = config.copy_and_resolve_references()
  if "classes" in config.method:
    sources = (configured_source(config.data, part) for part in ("train", "heldout"))
    names = common_classes(*sources)
    if config.method.classes not in (0, len(names)):
      raise UserError(
        f"method.classes={config.method.classes}, but {config.data.name} has "
        f"{len(names)}; leave it at 0"
      )
    config.method.classes = len(names)
  return config


def evaluate(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Evaluates the latest checkpoint of `workdir`; writes evaluation.json there.

  The data and eval sections may differ from those of the training.

  Raises:
    UserError: if there is no checkpoint, or its method or network is another one.
  """
  run, step = checkpoint.locate(workdir)
  config = resolved(config)
  stored = Checkpoints(run).config(step)
  for section in ("method", "model"):
    rows = difference(stored[section], config[section].to_dict(), f"{section}.")
    if rows:
      raise UserError(f"{workdir} was trained with another config: {'; '.join(rows)}")
  values = _evaluate_checkpoint(config, run, step)
  _write(values, step, workdir / "evaluation.json")
  return values


def evaluate_run(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Evaluates what `config.init_from` names, by the configs stored with it.

  Of a run: the held-out metrics of its method, the accuracy over videos if it is a
  classifier, and its encoder beside random initialisation if the data have labels. Of
  a PyTorch file, the encoder; the config then says which network it is. The result
  goes to `workdir`/evaluation.json.

  Args:
    config: `init_from`, `eval`, and `data`, of which what is not empty replaces the
      run's own; `method` and `model` for a PyTorch file.
    workdir: folder for the result.

  Raises:
    UserError: if nothing can be evaluated; the message says why.
  """
  path = pathlib.Path(config.init_from).expanduser()
  if path.is_file():
    mesh, key = sharding.make_mesh(), jax.random.key(config.seed)
    random = starting_point.build_encoder(config, key)
    trained = starting_point.load_encoder_of(config, random)
    modules = {"": trained, "random_init/": random}
    step, values = 0, EncoderProbe(random, config, mesh)(modules)
  else:
    if not config.init_from:
      raise UserError("say what to evaluate: --config.init_from=runs/NAME")
    run, step = checkpoint.locate(path)
    config = _overlaid(ConfigDict(Checkpoints(run).config(step)), config)
    values = _evaluate_checkpoint(resolved(config), workdir, step, run)
  _write({"init_from": str(path), **values}, step, workdir / "evaluation.json")
  return values


def _evaluate_checkpoint(config, workdir, step, run=None):
  mesh = sharding.make_mesh()
  method = make_method(config)
  places = (sharding.replicated(mesh), sharding.aux_shardings(method, mesh))
  init = jax.jit(method.init, out_shardings=places)
  weights = init(jax.random.key(config.seed))
  params, aux = Checkpoints(run or workdir).restore_weights(step, *weights)
  held_out = HeldOut(method, config, mesh, workdir / "bad_files.txt")
  values = held_out(params, aux)
  tests = [final_test(held_out, method, config, mesh, workdir)]
  if config.method.name == "classify" and run is not None:
    tests.append(pretraining_probe(method, config, mesh))
  for test in tests:
    values |= test(params, aux) if test else {}
  return values


def _overlaid(stored: ConfigDict, config: ConfigDict) -> ConfigDict:
  """A run's config with what another one says about data and evaluation."""
  stored.eval.update(config.eval)
  for name, value in config.data.items():
    if value not in ("", 0):
      stored.data[name] = value
  return stored


def _write(values, step, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  logs.write_json(path, {"step": step, **values})
  numbers = {k: v for k, v in values.items() if isinstance(v, float)}
  logger.info("step %d\n%s\n  written to %s", step, logs.scores_text(numbers), path)
