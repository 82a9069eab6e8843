"""Rows of batches, made of the records of a source.

A row is a dict of the sampler's arrays, and of `label` int32, `index` int32 (position
in the source) and `valid` bool; a batch has a leading batch axis. A record that cannot
be decoded gives zeros and `valid` False; it never stops a run by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import grain
import numpy as np

from motion_jax.data.clips import Sampler, Views
from motion_jax.data.sources import DecodeError, Source


def empty_row(sampler: Sampler) -> dict[str, np.ndarray]:
  """One row of zeros with `valid` False: the names, shapes and types of a batch."""
  return with_labels(sampler.empty(), -1, -1, False)


class Rows(grain.transforms.RandomMap):
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
    return with_labels(arrays, label, index, valid)

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
          with_labels(dict(zip(part, clip, strict=True)), label, index, True)
          for clip in zip(*part.values(), strict=True)
        ]
    except (DecodeError, OSError, MemoryError):
      yield [with_labels(self.sampler.empty(), label, index, False)]


def with_labels(arrays: dict, label: int, index: int, valid: bool) -> dict:
  """Completes the arrays of a row."""
  return {
    **arrays,
    "label": np.int32(label),
    "index": np.int32(index),
    "valid": np.bool_(valid),
  }
