"""Batches for evaluation: one pass over the records, in order."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from motion_jax.data.clips import Sampler, Views
from motion_jax.data.host import AUTO, default_threads
from motion_jax.data.rows import Rows, empty_row, with_labels
from motion_jax.data.sources import Source


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
    threads: that decode; None or `AUTO` for `default_threads()`.
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
  threads = default_threads() if threads in (None, AUTO) else threads
  rows = _rows(Rows(source, sampler), indices, batch_size, seed, threads, agree)
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
          yield with_labels(sampler.empty(), -1, index, False)
