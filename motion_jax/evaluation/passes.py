"""One pass over records: every process decodes its share, all devices compute."""

import logging
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from motion_jax import logs
from motion_jax.data.clips import Sampler
from motion_jax.data.evaluation_batches import empty_batch, evaluation_batches
from motion_jax.data.rows import for_devices
from motion_jax.data.sources import Source
from motion_jax.evaluation.parts import Parts
from motion_jax.scale import hosts, sharding

logger = logging.getLogger("motion_jax")

Rows = dict[str, np.ndarray]


def joined_batches(
  source: Source,
  sampler: Sampler,
  mesh: Mesh,
  *,
  batch_size: int,
  seed: int,
  threads: int,
  records: Sequence[int] | None = None,
) -> Iterator[tuple[Rows, dict[str, jax.Array]]]:
  """Yields the batches of a pass, as many in every process.

  Args:
    source, sampler, batch_size, seed, threads, records: see `evaluation_batches`.
    mesh: from `sharding.make_mesh`.

  Yields:
    (rows that this process has decoded, the batch of all processes). A process that has
    come to its end goes on with rows that fill up until all have.
  """
  own = evaluation_batches(
    source,
    sampler,
    batch_size=batch_size,
    seed=seed,
    records=records,
    multiple=mesh.size,
    threads=threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  size = sharding.evaluation_rows(batch_size, mesh) // jax.process_count()
  while True:
    rows = next(own, None)
    if not hosts.largest(rows is not None):
      return
    if rows is None:
      rows = empty_batch(sampler, size)
    yield rows, sharding.join_rows(mesh, for_devices(rows))


def value_of_each(
  function: Callable[[Rows, dict[str, jax.Array]], np.ndarray],
  source: Source,
  sampler: Sampler,
  mesh: Mesh,
  *,
  text: str,
  parts: Parts | None = None,
  dtype=np.float32,
  **options,
) -> tuple[np.ndarray, np.ndarray]:
  """What a function finds of every record that can be decoded, in every process.

  A record that the process whose share it is in cannot decode is missing for all.

  Args:
    function: takes an item of `joined_batches`; returns [rows, ...] of its own rows.
    source: the records.
    sampler: what is taken from a record; of several rows the values are averaged.
    mesh: from `sharding.make_mesh`.
    text: says what is done, for the progress bar.
    parts: where an earlier start has left values, and this one leaves them.
    dtype: of the values, float32 or float64.
    options: see `joined_batches`.

  Returns:
    (positions [N] of the records in the source, values [N, ...]), sorted.
  """
  means = _Means(dtype)
  if parts:
    means.positions, means.values = parts.load()
  done, _ = hosts.gathered(*(np.asarray(means.positions, np.int64),) * 2)
  rest = np.setdiff1d(np.arange(len(source)), done)
  with logs.progress_bar(len(source), text) as show:
    if len(done):
      logger.info("%s: %d of %d were done before", text, len(done), len(source))
    show(len(done))
    batches = joined_batches(source, sampler, mesh, records=rest, **options)
    for rows, batch in batches:
      means.add(rows["index"], rows["valid"], function(rows, batch))
      if parts:
        parts.save(means.positions, means.values)
      # The others are about as far, in each batch or by turns.
      last = np.searchsorted(rest, rows["index"].max(), side="right")
      show(len(done) + int(last))
    means.end_record()
  positions = np.asarray(means.positions, np.int64)
  return hosts.gathered(positions, np.asarray(means.values, dtype))


class _Means:
  """Means over the rows of records that come one after the other.

  Attributes:
    positions: of the records that are complete and whole.
    values: their means.
  """

  def __init__(self, dtype):
    self.positions, self.values = [], []
    self._dtype, self._record = dtype, -1

  def add(self, index: np.ndarray, valid: np.ndarray, values: np.ndarray) -> None:
    """Takes rows: which record, -1 for none; whether it is valid; what was found."""
    for record, is_valid, value in zip(index.tolist(), valid, values, strict=True):
      if record < 0:
        continue
      if record != self._record:
        self.end_record()
        self._record, self._sum, self._rows, self._is_whole = record, 0.0, 0, True
      self._is_whole &= bool(is_valid)
      self._sum = self._sum + np.asarray(value, np.float64)
      self._rows += 1

  def end_record(self) -> None:
    """The record whose rows came last has no more of them."""
    if self._record >= 0 and self._is_whole:
      self.positions.append(self._record)
      self.values.append(np.asarray(self._sum / self._rows, self._dtype))
    self._record = -1
