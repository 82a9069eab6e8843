"""Batches for training: endless, shuffled, the same for any number of hosts."""

from __future__ import annotations

import logging

import grain
import numpy as np

from motion_jax.data.clips import Sampler
from motion_jax.data.host import AUTO, plan_input
from motion_jax.data.rows import Rows, empty_row, with_arrays_of
from motion_jax.data.sources import Source
from motion_jax.data.stream import Stream

logger = logging.getLogger("motion_jax")

_STAND_INS = 3  # rows that are decoded in search of one for a row that cannot be


def make_pipeline(
  source: Source,
  sampler: Sampler,
  *,
  batch_size: int,
  seed: int,
  threads: int = AUTO,
  workers: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Stream:
  """Builds the training batches; every epoch is shuffled anew.

  Global batch number n holds the same samples whatever the number of hosts: host 0
  yields its first batch_size // process_count rows, host 1 the next ones, and so on.

  Args:
    source: where records come from.
    sampler: what is taken from a record.
    batch_size: records of a global batch, a multiple of `process_count`; a host yields
      batch_size // process_count.
    seed: of the order and of the sampler's generators.
    threads, workers: that decode; see `host.plan_input`. With workers a program must
      not start anything when it is imported (`if __name__ == "__main__":`).
    process_index: number of this host.
    process_count: number of hosts.

  Returns:
    An iterator of batches; see `stream.Stream`.
  """
  rows = batch_size // process_count
  row = sum(array.nbytes for array in empty_row(sampler).values())
  plan = plan_input(row, rows, threads=threads, workers=workers)
  logger.info("%s", plan)
  records = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
  # Hosts take their share last, so that their random numbers differ.
  records = records.random_map(Rows(source, sampler))
  own = grain.MapDataset.range(len(records) // batch_size * rows)
  own = own.map(_HostRows(records, batch_size, process_index, process_count))
  options = grain.ReadOptions(num_threads=plan.threads, prefetch_buffer_size=plan.ahead)
  return Stream(own, rows, options, plan.workers)


class _HostRows(grain.transforms.Map):
  """The records of one host: of every global batch, the rows that are its own.

  A row that cannot be decoded gets the arrays of one that follows it in the global
  batch, the same on any number of hosts: zeros are not what networks should take the
  statistics of batch normalisation of.
  """

  def __init__(
    self,
    records: grain.MapDataset,
    batch_size: int,
    process_index: int,
    process_count: int,
  ):
    self._records, self._batch_size = records, batch_size
    self._rows = batch_size // process_count
    self._first = process_index * self._rows

  def map(self, position) -> dict[str, np.ndarray]:
    batch, row = divmod(int(position), self._rows)
    place = self._first + row
    found = self._row(batch, place)
    for step in range(1, min(_STAND_INS + 1, self._batch_size)):
      if found["valid"]:
        break
      other = self._row(batch, (place + step) % self._batch_size)
      if other["valid"]:
        return with_arrays_of(found, other)
    return found

  def _row(self, batch: int, place: int) -> dict[str, np.ndarray]:
    return self._records[batch * self._batch_size + place]
