"""Batches for evaluation: one pass over the records, dealt out to the hosts."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from motion_jax.data.clips import Sampler, Views
from motion_jax.data.host import AUTO, default_threads
from motion_jax.data.rows import Rows, empty_row
from motion_jax.data.sources import Source


def evaluation_batches(
  source: Source,
  sampler: Sampler,
  *,
  batch_size: int,
  seed: int,
  records: Sequence[int] | None = None,
  multiple: int = 1,
  threads: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields this host's rows of one pass; the same samples on every call.

  A record is decoded by one host alone. Where each is one row, global batch n holds the
  records n * batch_size to (n + 1) * batch_size, in order, whatever the number of
  hosts. Of `Views` each host takes a video in turn, whose clips are rows of its own;
  hosts may then differ in how many batches they make.

  Args:
    source: where records come from.
    sampler: what is taken from a record; each clip of `Views` becomes a row.
    batch_size: rows of every global batch.
    seed: of the sampler's generators; each record has its own.
    records: positions in the source to go through, in this order; None for all.
    multiple: every batch is filled up to a multiple of this, the number of devices of
      all hosts together.
    threads: that decode; None or `AUTO` for `default_threads()`.
    process_index: number of this host.
    process_count: number of hosts.

  Yields:
    Batches of one shape. Rows that fill up have index -1, label -1 and valid False. Of
    a video with a row that is not valid no other row is to be used.
  """
  records = range(len(source)) if records is None else records
  own = -(-batch_size // multiple) * multiple // process_count
  threads = default_threads() if threads in (None, AUTO) else threads
  if isinstance(sampler, Views):
    sizes, dealt = itertools.repeat(own), records[process_index::process_count]
  else:
    shares = _shares(len(records), batch_size, process_index, process_count)
    sizes = map(len, shares)
    dealt = [records[place] for place in itertools.chain(*shares)]
  padding = empty_row(sampler)
  rows = _rows(Rows(source, sampler), dealt, seed, threads, ahead=own)
  for size in sizes:
    batch = [*itertools.islice(rows, size)]
    if isinstance(sampler, Views) and not batch:
      return
    batch += [padding] * (own - len(batch))
    yield {key: np.stack([row[key] for row in batch]) for key in padding}


def empty_batch(sampler: Sampler, rows: int) -> dict[str, np.ndarray]:
  """A batch of rows that fill up."""
  return {key: np.stack([x] * rows) for key, x in empty_row(sampler).items()}


def _shares(count, batch_size, process_index, process_count) -> list[range]:
  """A host's places in each batch of records: of any batch an even share."""
  shares = []
  for start in range(0, count, batch_size):
    size = min(batch_size, count - start)
    first, last = (
      start + size * index // process_count
      for index in (process_index, process_index + 1)
    )
    shares.append(range(first, last))
  return shares


def _rows(sample: Rows, records, seed, threads, ahead) -> Iterator[dict]:
  """The rows of records in order, decoded ahead in threads."""
  has_views = isinstance(sample.sampler, Views)
  in_parts = has_views and not sample.sampler.views
  # Keep the threads busy; without clips a video is one row.
  wanted = 2 * threads + (0 if has_views else ahead)
  rest, waiting = iter(records), collections.deque()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:

    def decode(parts):
      return parts, pool.submit(next, parts, ())

    while True:
      for index in map(int, itertools.islice(rest, wanted - len(waiting))):
        rng = np.random.default_rng([seed, index])
        waiting.append(decode(sample.parts(index, rng)))
      if not waiting:
        return
      parts, part = waiting.popleft()
      rows = part.result()
      if rows and in_parts:
        waiting.appendleft(decode(parts))
      yield from rows
