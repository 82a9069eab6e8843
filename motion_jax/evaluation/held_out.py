"""The metrics of a method on held-out records, and its outputs for other evaluators."""

import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.data.clips import Sampler
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.sources import Source
from motion_jax.scale import hosts, sharding
from motion_jax.training import state
from motion_jax.training.bad_files import BadFiles


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
    self._sampler = method.sampler("heldout", source)
    self._bad_files = BadFiles(source, bad_files, config.data.max_bad_fraction)
    self._metrics, self._config, self._mesh = method.metrics, config, mesh
    sharding.evaluation_rows(config.eval.batch_size, mesh)

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
    for batch in evaluation_batches(
      self.source,
      sampler,
      batch_size=self._config.eval.batch_size,
      multiple=self._mesh.size,
      seed=self._config.seed,
      limit=limit,
      threads=self._config.data.threads,
      agree=agree,
    ):
      yield self._bad_files.update(batch)
    self._bad_files.settle()

  def _predict(self, params, aux, batch):
    return self.predict(params, aux, sharding.shard_batch(self._mesh, batch))
