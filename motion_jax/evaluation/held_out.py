"""The metrics of a method on held-out records, and its outputs for other evaluators."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.data.clips import Sampler
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.rows import empty_row, for_devices
from motion_jax.data.sources import Source
from motion_jax.evaluation.parts import UNFINISHED, Parts
from motion_jax.evaluation.passes import Rows, joined_batches, value_of_each
from motion_jax.scale import sharding
from motion_jax.training import state
from motion_jax.training.bad_files import BadFiles


class HeldOut:
  """Evaluates a method on held-out sources, always the same ones in the same order.

  The values depend neither on devices nor on processes. What is measured within a
  batch, a few metrics of MoDist, is so among `eval.batch_size` rows; all else depends
  on no batch.

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

  what = "the method's metrics on held-out videos"

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
    self._method, self._config, self._mesh = method, config, mesh
    rows = config.eval.batch_size
    sharding.evaluation_rows(rows, mesh)
    self._options = dict(batch_size=rows, seed=config.seed, threads=config.data.threads)
    limit, self._records = max(0, config.eval.max_sources), None
    if 0 < limit < len(source):
      # Not evenly spaced: records of a class may be, too.
      drawn = np.random.default_rng(0).permutation(len(source))[:limit]
      self._records = np.sort(drawn)

  def __len__(self) -> int:
    return len(self.source if self._records is None else self._records)

  def check(self, params, aux) -> None:
    """Traces an evaluation: a method's mistakes are told before it trains for long."""
    rows = sharding.evaluation_rows(self._config.eval.batch_size, self._mesh)
    batch = {
      name: jax.ShapeDtypeStruct((rows, *array.shape), array.dtype)
      for name, array in for_devices(empty_row(self._sampler)).items()
    }

    def measured(params, aux, batch):
      return self._method.measured(self.predict(params, aux, batch))

    jax.eval_shape(measured, params, aux, batch)

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/<metric>': mean over all valid held-out examples}."""
    collected = self._method.metrics.empty()
    options = dict(records=self._records, **self._options)
    for rows, batch in joined_batches(
      self.source, self._sampler, self._mesh, **options
    ):
      self._bad_files.update(rows)
      outputs = self.predict(params, aux, batch)
      collected = collected.merge(self._method.measured(outputs))
    self._bad_files.settle()
    values = jax.device_get(collected.compute())
    return {f"eval/{name}": float(value) for name, value in values.items()}

  def value_of_each(
    self,
    params,
    aux,
    sampler: Sampler,
    value: Callable[[Rows, Rows], np.ndarray],
    workdir: pathlib.Path,
    *,
    dtype=np.float32,
  ) -> tuple[np.ndarray, np.ndarray]:
    """What follows from the predictions for every record of the whole source.

    Args:
      params, aux: of the method.
      sampler: what is taken from every record.
      value: takes rows of a batch and the outputs of `predict` for them; returns
        [rows, ...].
      workdir: of the run, for parts of a pass that is interrupted.
      dtype: of the values.

    Returns:
      (positions [N] of the records that can be decoded, values [N, ...]).
    """

    def function(rows, batch):
      self._bad_files.update(rows)
      outputs = self.predict(params, aux, batch)
      return value(rows, jax.tree.map(sharding.own_rows, outputs))

    about = (type(sampler).__name__, self._config, (params, aux), self.source)
    parts = Parts(workdir / UNFINISHED, *about)
    options = dict(text="testing", parts=parts, dtype=dtype, **self._options)
    found = value_of_each(function, self.source, sampler, self._mesh, **options)
    self._bad_files.settle()
    return found

  def examples(self) -> dict[str, np.ndarray]:
    """The first batch that the metrics are measured on."""
    options = dict(records=self._records, multiple=self._mesh.size, **self._options)
    return for_devices(next(evaluation_batches(self.source, self._sampler, **options)))
