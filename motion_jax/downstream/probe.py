"""What an encoder is worth without fine-tuning: retrieval, k-NN and a linear probe.

Features are means over evenly spaced clips of each video; the training split is the
gallery, the held-out split asks. The same network at random initialisation stands
beside it: only the difference was learned.
"""

import logging

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.config import UserError
from motion_jax.data.inputs import Sources, feature_views
from motion_jax.data.labels import common_classes, has_labels, warn_of_gaps
from motion_jax.data.subsets import subset_of_size
from motion_jax.downstream.features import FeatureExtractor
from motion_jax.evaluation import linear, retrieval

logger = logging.getLogger("motion_jax")


class EncoderProbe:
  """Measures encoders of one structure on the labelled videos of a config.

  Args:
    module: one such encoder, in evaluation mode.
    sources: the videos, with labels.
    config: a whole config; `data`, `method` (size, mean, std) and `eval` are read.
    mesh: from `sharding.make_mesh`.

  Raises:
    UserError: if the data have no labels.
  """

  def __init__(
    self, module: nnx.Module, sources: Sources, config: ConfigDict, mesh: Mesh
  ):
    self._config = config
    train, heldout = (
      subset_of_size(source, config.eval.max_videos)
      for source in (sources.train, sources.heldout)
    )
    common_classes(train, heldout)
    warn_of_gaps(train, heldout)
    self._sources = {"train": train, "heldout": heldout}
    self._views = feature_views(config)
    self._extract = FeatureExtractor(module, config, mesh, config.eval.batch_size)

  def __call__(self, modules: dict[str, nnx.Module]) -> dict[str, float]:
    """Measures encoders.

    Args:
      modules: encoders by prefix, e.g. {'': trained, 'random_init/': random}.

    Returns:
      {'eval/<prefix><score>': value}, in [0, 1]: retrieval_r1 to retrieval_r50
      (below the number of training videos),
      retrieval_centred_r1 ..., knn_top1, linear_top1.
    """
    train, test = (self._features(split, modules) for split in self._sources)
    values = {}
    for number, prefix in enumerate(modules):
      scores = _scores(train[number], test[number], self._config.eval.linear)
      values |= {f"eval/{prefix}{name}": score for name, score in scores.items()}
    return values

  def _features(self, split, modules):
    source, config = self._sources[split], self._config
    total = len(source)
    with logs.progress_bar(total, f"features of {split} videos") as show:
      seen = set()

      def on_batch(batch):
        seen.update(batch["index"].tolist())
        show(len(seen - {-1}))

      found = self._extract(
        list(modules.values()),
        source,
        self._views,
        threads=config.data.threads,
        on_batch=on_batch,
      )
    lost = total - len(found[0].labels)
    if lost:
      logger.warning("%d of %d %s videos do not count: damaged", lost, total, split)
    return found


class PretrainingProbe:
  """An `EncoderProbe` as the test of a pretraining: (params, aux) -> values."""

  def __init__(self, method, sources: Sources, config: ConfigDict, mesh: Mesh):
    weights = jax.jit(method.init)(jax.random.key(config.seed))
    self._method = method
    self._random = method.encoder(*weights)
    self._probe = EncoderProbe(self._random, sources, config, mesh)
    self._random_values: dict[str, float] = {}

  def __call__(self, params, aux) -> dict[str, float]:
    """Values of the encoder, and as 'eval/random_init/...' of the untrained one."""
    modules = {"": self._method.encoder(params, aux)}
    if not self._random_values:
      modules["random_init/"] = self._random
    values = self._probe(modules)
    if not self._random_values:
      self._random_values = {
        name: value for name, value in values.items() if "/random_init/" in name
      }
    return values | self._random_values


def pretraining_probe(
  method, sources: Sources, config: ConfigDict, mesh: Mesh, *, required: bool = False
):
  """A `PretrainingProbe`, or None where `eval.probe` is off or labels are missing.

  Raises:
    UserError: if the probe is `required` and the labels do not serve; it says why.
  """
  if not config.eval.probe:
    return None
  labelled = has_labels(sources.train) and has_labels(sources.heldout)
  if not labelled and not required:
    logger.info("no labels, so no retrieval: the pretext task is what is measured")
    return None
  try:
    return PretrainingProbe(method, sources, config, mesh)
  except UserError as error:
    if required:
      raise
    logger.info("no retrieval: %s", error)
    return None


def _scores(train, test, with_linear):
  sets = (test.features, test.labels, train.features, train.labels)
  jobs = {
    "retrieval_": lambda: retrieval.recall(*sets),
    "retrieval_centred_": lambda: retrieval.recall(*sets, centred=True),
    "knn_": lambda: _top1(retrieval.knn_accuracy(*sets)),
  }
  if with_linear:
    jobs["linear_"] = lambda: _top1(linear.linear_accuracy(*sets[2:], *sets[:2]))
  values = {}
  for prefix, job in jobs.items():
    try:
      values |= {f"{prefix}{name}": value for name, value in job().items()}
    except ValueError as error:  # e.g. a class whose only video is damaged
      logger.warning("no %sscore: %s", prefix, error)
  return values


def _top1(scores):
  return {"top1": scores["top1"]}
