"""Batches of samples: endless and shuffled for training, one pass for evaluation.

A batch is a dict of the sampler's arrays with a leading batch axis, and of `label`
[B] int32, `index` [B] int32 (position in the source) and `valid` [B] bool. A record
that cannot be decoded gives zeros and `valid` False; it never stops a run by itself.
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterator

import grain
import numpy as np

from motion_jax.data.bad_files import BadFiles
from motion_jax.data.clips import Sampler, Views
from motion_jax.data.sources import DecodeError, Source
from motion_jax.data.stream import Stream

_MAX_AHEAD = 8 * 2**30  # bytes of batches that are decoded ahead

__all__ = ["BadFiles", "empty_row", "evaluation_batches", "make_pipeline"]


def make_pipeline(
  source: Source,
  sampler: Sampler,
  *,
  batch_size: int,
  seed: int,
  threads: int | None = None,
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
    threads: decoding threads per process; None for `default_threads()`.
    workers: worker processes that decode; 0 decodes in this process.
    process_index: number of this host.
    process_count: number of hosts.

  Returns:
    An iterator of batches; see `stream.Stream`.
  """
  threads = threads or default_threads()
  rows = batch_size // process_count
  # Decoded ahead are the next batch and one more for each thread, up to 8 GB of them.
  row = sum(array.nbytes for array in empty_row(sampler).values())
  processes = max(1, workers)  # each reads ahead by itself, and has its threads
  most = min(rows + threads * processes, _MAX_AHEAD // row)
  prefetch = max(threads, most // processes)
  records = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
  # Hosts take their share last, so that their random numbers differ.
  records = records.random_map(_Sample(source, sampler))
  own = grain.MapDataset.range(len(records) // batch_size * rows)
  own = own.map(_HostRows(records, batch_size, process_index, process_count))
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
  return Stream(own, rows, options, workers)


def evaluation_batches(
  source: Source,
  sampler: Sampler,
  *,
  batch_size: int,
  seed: int,
  multiple: int = 1,
  limit: int | None = None,
  threads: int | None = None,
  agree: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields one pass in order; the same samples on every call.

  Of several hosts, every one makes all batches. Which rows a video has must not depend
  on whether a host can read its own copy, or all later rows would be of other videos
  there: what one host cannot read is one row that is not valid, for all of them.

  Args:
    source: where records come from.
    sampler: what is taken from a record; each clip of `Views` becomes a row.
    batch_size: rows of every batch.
    seed: of the sampler's generators; each record has its own.
    multiple: every batch is filled up to a multiple of this, the number of devices.
    limit: how many records to take, drawn once and for all, in order; None for all.
    threads: decoding threads; None for `default_threads()`.
    agree: given the numbers of rows [N] that this one of several hosts could make,
      returns those that all have, 0 where they differ; see `hosts.agreed`.

  Yields:
    Batches of one shape. Rows that fill up have index -1, label -1 and valid False. Of
    a video with a row that is not valid no other row is to be used.
  """
  indices = np.arange(len(source))
  if limit is not None and limit < len(source):
    # Not evenly spaced: records of a class may be, too.
    indices = np.sort(np.random.default_rng(0).permutation(len(source))[:limit])
  threads = threads or default_threads()
  rows = _rows(_Sample(source, sampler), indices, batch_size, seed, threads, agree)
  filled = -(-batch_size // multiple) * multiple
  while batch := [*itertools.islice(rows, batch_size)]:
    batch += [empty_row(sampler)] * (filled - len(batch))
    yield {key: np.stack([row[key] for row in batch]) for key in batch[0]}


def _rows(sample, indices, batch_size, seed, threads, agree) -> Iterator[dict]:
  """The rows of all records in order, decoded ahead in threads."""
  sampler, has_views = sample.sampler, isinstance(sample.sampler, Views)
  in_parts = has_views and not sampler.views
  # About a batch of rows is agreed on at a time.
  together = (
    1 if in_parts else max(1, batch_size // (sampler.views if has_views else 1))
  )
  # Keep the threads busy; without clips a video is one row.
  wanted = max(together, 2 * threads + (0 if has_views else batch_size))
  rest, ahead = iter(indices.tolist()), collections.deque()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:

    def decode(parts, index):
      return parts, index, pool.submit(next, parts, None)

    while True:
      for index in itertools.islice(rest, wanted - len(ahead)):
        parts = sample.parts(index, np.random.default_rng([seed, index]))
        ahead.append(decode(parts, index))
      if not ahead:
        return
      videos = [ahead.popleft() for _ in range(min(together, len(ahead)))]
      found = [part.result() for *_, part in videos]
      # Of a video that is damaged here, or has come to its end: 0 and -1.
      counts = [-1 if p is None else len(p) * p[-1]["valid"] for p in found]
      common = agree(np.asarray(counts)) if agree else counts
      for (parts, index, _), part, count in zip(videos, found, common, strict=True):
        if count > 0:
          if in_parts:
            ahead.appendleft(decode(parts, index))
          yield from part
        elif not count:
          yield _with_labels(sampler.empty(), -1, index, False)


def empty_row(sampler: Sampler) -> dict[str, np.ndarray]:
  """One row of zeros with `valid` False: the names, shapes and types of a batch."""
  return _with_labels(sampler.empty(), -1, -1, False)


def default_threads() -> int:
  """Returns two threads per core, at most 16.

  On a busy machine, one per core gets little more than one core. Beyond 16 they wait
  for the interpreter lock; use worker processes there.
  """
  return min(16, 2 * (os.cpu_count() or 1))


class _Sample(grain.transforms.RandomMap):
  """Takes a sample from the record at a position of a source."""

  def __init__(self, source: Source, sampler: Sampler):
    self._source, self.sampler = source, sampler

  def random_map(self, index, rng: np.random.Generator) -> dict[str, np.ndarray]:
    label = -1
    try:
      record = self._source[int(index)]
      label = record.label
      arrays = self.sampler(record, rng)
      valid = True
    except (DecodeError, OSError, MemoryError):
      arrays = self.sampler.empty()
      valid = False
    return _with_labels(arrays, label, index, valid)

  def parts(self, index: int, rng: np.random.Generator) -> Iterator[list[dict]]:
    """Yields rows: of `Views` each clip is one, of long videos a few at a time.

    Where a video turns out to be damaged, the last row is not valid.
    """
    if not isinstance(self.sampler, Views):
      yield [self.random_map(index, rng)]
      return
    label = -1
    try:
      record = self._source[index]
      label = record.label
      for part in self.sampler.parts(record):
        yield [
          _with_labels(dict(zip(part, clip, strict=True)), label, index, True)
          for clip in zip(*part.values(), strict=True)
        ]
    except (DecodeError, OSError, MemoryError):
      yield [_with_labels(self.sampler.empty(), label, index, False)]


class _HostRows(grain.transforms.Map):
  """The records of one host: of every global batch, the rows that are its own."""

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
    return self._records[batch * self._batch_size + self._first + row]


def _with_labels(arrays: dict, label: int, index: int, valid: bool) -> dict:
  return {
    **arrays,
    "label": np.int32(label),
    "index": np.int32(index),
    "valid": np.bool_(valid),
  }
