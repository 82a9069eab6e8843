"""Evaluators of features: what an encoder is worth as it is, without fine-tuning."""

import logging
from collections.abc import Mapping

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.data.inputs import feature_views
from motion_jax.data.sources import Source
from motion_jax.evaluation.features import FeatureExtractor, Features

logger = logging.getLogger("motion_jax")


class FrozenEncoder:
  """Measures the features of a method's encoder; a protocol writes `scores`.

  The same network at random initialisation stands beside it: only the difference was
  learned. It is measured once.

  Args:
    method: with `init` and `encoder`.
    config: a whole config; `data`, `method` (size, mean, std) and `eval` are read.
    sources: the videos, by what they are called.
    mesh: from `sharding.make_mesh`.
  """

  def __init__(
    self, method, config: ConfigDict, sources: Mapping[str, Source], mesh: Mesh
  ):
    self._method, self._config, self._sources = method, config, sources
    self._random = method.encoder(*jax.jit(method.init)(jax.random.key(config.seed)))
    self._random_values: dict[str, float] = {}
    rows = config.eval.batch_size
    self._extract = FeatureExtractor(self._random, config, mesh, rows)
    self._views = feature_views(config)

  def scores(self, *found: Features) -> dict[str, float]:
    """Returns {name: value} of the features of each source."""
    raise NotImplementedError

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/<score>': value}, and 'eval/random_init/<score>' beside."""
    encoders = [self._method.encoder(params, aux)]
    if not self._random_values:
      encoders.append(self._random)
    found = [self._features(name, encoders) for name in self._sources]
    values, *others = (self.scores(*each) for each in zip(*found, strict=True))
    for other in others:
      self._random_values = {f"eval/random_init/{k}": v for k, v in other.items()}
    return {f"eval/{k}": v for k, v in values.items()} | self._random_values

  def _features(self, name, encoders):
    source = self._sources[name]
    with logs.progress_bar(len(source), f"features of {name} videos") as show:
      found = self._extract(
        encoders,
        source,
        self._views,
        threads=self._config.data.threads,
        on_batch=lambda batch: show(int(batch["index"].max()) + 1),
      )
    lost = sorted({*range(len(source))} - {*found[0].positions.tolist()})
    if lost:
      logger.warning(
        "%d of %d %s videos do not count: damaged: %s",
        *(len(lost), len(source), name, ", ".join(map(source.id_of, lost[:5]))),
      )
    return found
