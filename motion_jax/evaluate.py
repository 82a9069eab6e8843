"""Evaluations of a run: its method's held-out metrics, video accuracy, its encoder."""

import logging
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import checkpoint, hosts, logs, sharding, state
from motion_jax.checkpoint import Checkpoints
from motion_jax.config import UserError, completed, difference
from motion_jax.data import pipeline
from motion_jax.data.clips import Sampler
from motion_jax.data.inputs import (
  Sources,
  configured_sources,
  heldout_sampler,
  test_views,
)
from motion_jax.data.labels import common_classes, warn_of_gaps
from motion_jax.data.sources import Source
from motion_jax.downstream.detection import DetectionTest
from motion_jax.downstream.probe import pretraining_probe
from motion_jax.evaluation.scores import telling
from motion_jax.evaluation.views import VideoScores
from motion_jax.methods import make_method

logger = logging.getLogger("motion_jax")


class HeldOut:
  """Evaluates a method on held-out sources, always the same ones in the same order.

  The values do not depend on the devices. What is measured within a batch, a few
  metrics of MoDist, is so among `eval.batch_size` rows; all else depends on no batch.

  Args:
    source: the held-out records.
    method: see `methods.base.Method`.
    config: a whole config; its sections `data` and `eval` are read.
    mesh: from `sharding.make_mesh`.
    bad_files: text file that gets the names of files that cannot be decoded.

  Attributes:
    source: as given.
    predict: jitted `method.predict`.
  """

  def __init__(
    self,
    source: Source,
    method,
    config: ConfigDict,
    mesh: Mesh,
    bad_files: pathlib.Path,
  ):
    self.source = source
    self.predict = state.make_predict(method, mesh)
    self._sampler = heldout_sampler(config, source)
    self._bad_files = pipeline.BadFiles(
      source,
      bad_files,
      max_fraction=config.data.max_bad_fraction,
      sampler=self._sampler,
    )
    self._metrics = method.metrics
    self._config = config
    self._mesh = mesh
    name = "eval.batch_size"
    sharding.check_batch_size(name, config.eval.batch_size, 1, "at least one row")

  def __len__(self) -> int:
    limit = max(0, self._config.eval.max_sources) or len(self.source)
    return min(limit, len(self.source))

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/<metric>': mean over all valid held-out examples}."""
    collected = self._metrics.empty()
    for batch in self._batches(self._sampler, len(self), hosts.agreed):
      outputs = self._predict(params, aux, batch)
      collected = collected.merge(self._metrics.single_from_model_output(**outputs))
    values = jax.device_get(collected.compute())
    return {f"eval/{name}": float(value) for name, value in values.items()}

  def outputs(self, params, aux, sampler: Sampler) -> Iterator[tuple[dict, dict]]:
    """Yields (batch, outputs of `predict`), NumPy arrays, of the whole source.

    Args:
      params, aux: of the method.
      sampler: what is taken from every record.
    """
    with logs.progress_bar(len(self.source), "testing") as show:
      for batch in self._batches(sampler, None, hosts.agreed):
        yield batch, jax.device_get(self._predict(params, aux, batch))
        show(int(batch["index"].max()) + 1)

  def examples(self) -> dict[str, np.ndarray]:
    """The first batch that the metrics are measured on, as this process sees it."""
    return next(self._batches(self._sampler, len(self)))

  def _batches(self, sampler, limit, agree=None):
    for batch in pipeline.evaluation_batches(
      self.source,
      sampler,
      batch_size=self._config.eval.batch_size,
      multiple=self._mesh.size,
      seed=self._config.seed,
      limit=limit,
      threads=self._config.data.threads,
      agree=agree,
    ):
      self._bad_files.update(batch)
      yield batch

  def _predict(self, params, aux, batch):
    return self.predict(params, aux, sharding.shard_batch(self._mesh, batch))


class VideoTest:
  """Accuracy of a classifier over held-out videos: `eval.clips` times `eval.crops`.

  The score of a video is the mean softmax over its views. `predictions.tsv` gets a line
  with the true and the predicted class of every video.

  Args:
    held_out: of a method whose `predict` gives `probabilities`.
    classes: names of the labels.
    config: a whole config.
    workdir: of the run.
  """

  def __init__(self, held_out: HeldOut, classes, config, workdir: pathlib.Path):
    self._held_out, self._classes, self._workdir = held_out, classes, workdir
    self._views = test_views(config)

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/top1': share of the videos}, and top5 of more than 5 classes."""
    source = self._held_out.source
    scores = VideoScores(len(source), len(self._classes))
    for batch, found in self._held_out.outputs(params, aux, self._views):
      scores.add(batch["index"], batch["valid"], found["probabilities"])
    lost = len(source) - int(scores.seen().sum())
    if lost:
      logger.warning("%d of %d test videos do not count: damaged", lost, len(source))
    if jax.process_index() == 0:
      self._write(scores)
    labels = np.asarray(source.labels)
    ks = telling((1, 5), len(self._classes))
    return {f"eval/top{k}": scores.accuracy(labels, k) for k in ks}

  def _write(self, scores):
    source, best = self._held_out.source, scores.probabilities()
    lines = ["video\tclass\tpredicted\tprobability"]
    for index in np.flatnonzero(scores.seen()):
      guess = int(best[index].argmax())
      true = self._classes[source.labels[index]]
      cells = (source.id_of(index), true, self._classes[guess])
      lines.append("\t".join((*cells, f"{best[index, guess]:.4f}")))
    text = "\n".join(lines) + "\n"
    path = self._workdir / "predictions.tsv"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


def final_test(held_out: HeldOut, sources: Sources, method, config, mesh, workdir):
  """The test at the end of a training: (params, aux) -> {'eval/<name>': value}.

  Of a classifier the accuracy over videos, of a detector frame mAP; of a pretraining
  what the encoder is worth beside its random initialisation, or None when the data have
  no labels.
  """
  if config.method.name == "classify":
    classes = common_classes(sources.train, sources.heldout)
    return VideoTest(held_out, classes, config, workdir)
  if config.method.name == "detect":
    return DetectionTest(held_out, config, workdir)
  return pretraining_probe(method, sources, config, mesh)


def open_sources(config: ConfigDict) -> Sources:
  """Opens both parts of a `data` section; of several processes, the same records.

  Raises:
    UserError: if there are no such data, or some processes see others.
  """
  sources = hosts.first_process_first(lambda: configured_sources(config))
  hosts.check_records((sources.train, sources.heldout))
  return sources


def resolved(config: ConfigDict, sources: Sources) -> ConfigDict:
  """A copy of a config that says which records its data are, and their classes.

  `data.records` is a hash of all names and labels: the same data in another place are
  the same. `method.classes` and `method.class_names` are of methods that have some.

  Raises:
    UserError: if labels are missing or do not fit; see `data.labels.common_classes`.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.data.records = hosts.digest_of_records((sources.train, sources.heldout))
  if "classes" in config.method:
    names = common_classes(sources.train, sources.heldout)
    warn_of_gaps(sources.train, sources.heldout)
    if config.method.classes not in (0, len(names)):
      raise UserError(
        f"method.classes={config.method.classes}, but {config.data.name} has "
        f"{len(names)}; leave it at 0"
      )
    config.method.classes = len(names)
    with config.unlocked():
      config.method.class_names = names
  return config


def evaluate(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Evaluates the latest checkpoint of `workdir`; writes evaluation.json there.

  The data and eval sections may differ from those of the training.

  Raises:
    UserError: if there is no checkpoint, or its method or network is another one.
  """
  run, step = checkpoint.locate(workdir)
  sources = open_sources(config.data)
  config = resolved(config, sources)
  stored = Checkpoints(run).config(step)
  if stored.get(checkpoint.ENCODER_ONLY):
    raise UserError(
      f"{workdir} holds an encoder without its pretext head; what the encoder is worth "
      f"is told by --config=configs/evaluate.py --config.init_from={workdir}"
    )
  current = completed(config.to_dict())
  for section in ("method", "model"):
    rows = difference(stored[section], current[section], f"{section}.")
    if rows:
      raise UserError(f"{workdir} was trained with another config: {'; '.join(rows)}")
  mesh, method = sharding.make_mesh(), make_method(config)
  weights = restored(method, config, mesh, run, step)
  values = _task(method, sources, config, mesh, workdir, weights)
  _write(values, step, workdir / "evaluation.json")
  return values


def evaluate_run(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Evaluates the run that `config.init_from` names, by the config stored with it.

  On the run's own data: the held-out metrics of its method, the accuracy over videos if
  it is a classifier, and its encoder beside random initialisation if there are labels.
  On other data, the encoder alone. The result goes to `workdir`/evaluation.json.

  Args:
    config: `init_from`, and `data` and `eval`, of which what is not None replaces the
      run's own.
    workdir: folder for the result.

  Raises:
    UserError: if nothing can be evaluated; the message says why.
  """
  if not config.init_from:
    raise UserError("say what to evaluate: --config.init_from=runs/NAME")
  run, step = checkpoint.locate(config.init_from)
  stored = ConfigDict(Checkpoints(run).config(step))
  mesh, method = sharding.make_mesh(), make_method(stored)
  weights = restored(method, stored, mesh, run, step)
  stored, is_other = overlaid(stored, config)
  sources = open_sources(stored.data)
  alone = is_other or stored.get(checkpoint.ENCODER_ONLY, False)
  if alone:
    reason = "other data than the run's" if is_other else "the run has no pretext head"
    logger.info("%s: only its encoder is evaluated", reason)
    values = {}
  else:
    values = _task(method, sources, stored, mesh, workdir, weights)
  if alone or stored.method.name == "classify":
    probe = pretraining_probe(method, sources, stored, mesh, required=alone)
    values |= probe(*weights) if probe else {}
  if not values:
    raise UserError("nothing to evaluate: the data have no labels")
  _write(
    {"init_from": str(config.init_from), **values}, step, workdir / "evaluation.json"
  )
  return values


def restored(method, config: ConfigDict, mesh: Mesh, run: pathlib.Path, step: int):
  """Returns (params, aux) of a checkpoint of `run`, placed on the mesh."""
  weights = state.initial_weights(method, jax.random.key(config.seed), mesh)
  return Checkpoints(run).restore_weights(step, *weights)


def _task(method, sources, config, mesh, workdir, weights):
  """What the method itself is measured by, and the test at its end."""
  bad_files = workdir / "bad_files.txt"
  own = hosts.own_file(bad_files)
  held_out = HeldOut(sources.heldout, method, config, mesh, own)
  values = held_out(*weights)
  test = final_test(held_out, sources, method, config, mesh, workdir)
  values |= test(*weights) if test else {}
  if jax.process_index() == 0:
    hosts.merge_own_files(bad_files)
  return values


def overlaid(stored: ConfigDict, config: ConfigDict) -> tuple[ConfigDict, bool]:
  """A run's config with what another one says; whether that names other data.

  Args:
    stored: of the run; is changed.
    config: its sections `data` and `eval` replace the run's values but for None.
  """
  given = {name: value for name, value in config.data.items() if value is not None}
  is_other = bool({"name", "path"} & given.keys())
  if is_other:  # lists and subsets belong to the run's own data
    reset = dict(train_list="", heldout_list="", per_class=0, fraction=1.0, path="")
    given = {key: value for key, value in reset.items() if key in stored.data} | given
    if given.get("path"):
      given.setdefault("name", "folder")
  stored.unlock()
  stored.data.update(given)
  for name, default in dict(linear=True, max_videos=0).items():
    stored.eval[name] = stored.eval.get(name, default)
  stored.eval.probe = True
  stored.eval.update({k: v for k, v in config.eval.items() if v is not None})
  return stored, is_other


def _write(values, step, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  logs.write_json(path, {"step": step, **values})
  numbers = {k: v for k, v in values.items() if isinstance(v, float)}
  logger.info("step %d\n%s\n  written to %s", step, logs.scores_text(numbers), path)
