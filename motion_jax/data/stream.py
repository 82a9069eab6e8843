"""Training batches from any position on, for any number of hosts and workers."""

from __future__ import annotations

import signal

import grain
import numpy as np
from absl import flags

from motion_jax.data.worker import serve_parent

_BATCHES_AHEAD = 1  # stacked while the training is busy


class Stream:
  """An iterator of batches whose state is the number of batches taken.

  All hosts are at the same number, so it is also where another number of hosts, or of
  worker processes, goes on.

  Args:
    records: all of them, made when they are asked for, in parallel.
    batch_size: records of a batch.
    options: how many are made at a time, and ahead.
    workers: processes that make them; 0 for threads of this one.
  """

  def __init__(
    self,
    records: grain.MapDataset,
    batch_size: int,
    options: grain.ReadOptions,
    workers: int,
  ):
    self._records, self._batch_size = records, batch_size
    self._options, self._workers = options, workers
    self._taken, self._opened = 0, None

  def __iter__(self) -> Stream:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._opened is None:
      self._opened = self._open(self._taken)
    batch = next(self._opened)
    self._taken += 1
    return batch

  def get_state(self) -> dict[str, int]:
    """The position, for `set_state` of a stream of the same batches."""
    return {"next_index": self._taken}

  def set_state(self, state: dict[str, int]) -> None:
    """Moves to a position."""
    self.close()
    self._taken = state["next_index"]

  def close(self) -> None:
    """Ends the making of batches."""
    if self._opened is not None:
      self._opened.close()
      self._opened = None

  def _open(self, first: int) -> grain.DatasetIterator:
    """Starts at batch number `first`."""
    stream = self._records[first * self._batch_size :].to_iter_dataset(self._options)
    if self._workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads a flag when it starts its workers
      options = grain.MultiprocessingOptions(num_workers=self._workers)
      stream = stream.mp_prefetch(options, worker_init_fn=_start_worker)
    # Records before batches: Grain's threads and workers share out what they are given.
    stream = stream.batch(self._batch_size, drop_remainder=True)
    stream = grain.experimental.ThreadPrefetchIterDataset(
      stream, prefetch_buffer_size=_BATCHES_AHEAD
    )
    return iter(stream)


def _start_worker(worker: int, workers: int) -> None:
  serve_parent(signal.SIGINT, signal.SIGTERM)
