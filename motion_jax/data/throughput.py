"""Measures how many records per second an input pipeline delivers."""

from __future__ import annotations

import time

from motion_jax.data import pipeline
from motion_jax.data.clips import Sampler
from motion_jax.data.sources import Source


def input_rate(
  source: Source,
  sampler: Sampler,
  batch_size: int,
  seconds: float,
  threads: int | None = None,
  workers: int = 0,
) -> float:
  """Runs the training input without a model.

  Args:
    source: where records come from.
    sampler: what is taken from a record.
    batch_size: records of a batch.
    seconds: how long to measure; the start-up is not counted.
    threads: decoding threads; None for the pipeline's default.
    workers: processes that decode; 0 for this one.

  Returns:
    Records per second.
  """
  batches = iter(
    pipeline.make_pipeline(
      source,
      sampler,
      batch_size=batch_size,
      seed=0,
      threads=threads,
      workers=workers,
    )
  )
  next(batches)
  records, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds or not records:
    next(batches)
    records += batch_size
  if workers:
    batches.close()
  return records / elapsed
