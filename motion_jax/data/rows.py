"""Rows of batches, made of the records of a source.

A row is a dict of the sampler's arrays, and of `label` int32, `index` int32 (position
in the source), `valid` bool and `reason` bytes; a batch has a leading batch axis. A
record that cannot be decoded gives zeros, `valid` False and the reason, and never stops
a run by itself. Storage that fails does, after some minutes; see `storage`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import grain
import numpy as np

from motion_jax.data import storage
from motion_jax.data.clips import Sampler, Views
from motion_jax.data.sources import DecodeError, Record, Source

_REASON = 300  # bytes of a reason that are kept


def empty_row(sampler: Sampler) -> dict[str, np.ndarray]:
  """One row of zeros with `valid` False: the names, shapes and types of a batch."""
  return row(sampler.empty(), -1, -1)


def row(arrays: dict, label: int, index: int, reason: str | None = None) -> dict:
  """Completes the arrays of a row; reason None: it is valid, unless it is padding."""
  text = (reason or "").encode("utf-8", "replace")[:_REASON]
  return {
    **arrays,
    "label": np.int32(label),
    "index": np.int32(index),
    "valid": np.bool_(reason is None and index >= 0),
    "reason": np.bytes_(text),
  }


def for_devices(rows: dict) -> dict:
  """What devices get of a row or a batch: all but the reasons."""
  return {name: array for name, array in rows.items() if name != "reason"}


def with_arrays_of(lost: dict, other: dict) -> dict:
  """A row that is not valid, with the sampler's arrays of another row."""
  own = ("label", "index", "valid", "reason")
  return {**other, **{name: lost[name] for name in own}}


class Rows(grain.transforms.RandomMap):
  """Takes a sample from the record at a position of a source."""

  def __init__(self, source: Source, sampler: Sampler):
    self._source, self.sampler = source, sampler
    name = str(source.name)
    self._patience = storage.Patience(root=name if os.path.isabs(name) else "")

  def random_map(self, index, rng: np.random.Generator) -> dict[str, np.ndarray]:
    reading, state = _Reading(self._source, int(index)), rng.bit_generator.state

    def take():
      rng.bit_generator.state = state  # the same at every attempt
      return self.sampler(reading(), rng)

    arrays, reason = self._taken(take, reading)
    return self._completed(arrays, reading, reason)

  def parts(self, index: int, rng: np.random.Generator) -> Iterator[list[dict]]:
    """Yields rows: of `Views` each clip is one, of long videos a few at a time.

    Where a video turns out to be damaged, the last row is not valid.
    """
    if not isinstance(self.sampler, Views):
      yield [self.random_map(index, rng)]
      return
    reading, parts, count = _Reading(self._source, index), None, 0

    def take():
      nonlocal parts
      try:
        if parts is None:  # or again, and then those that are taken are passed over
          parts = itertools.islice(self.sampler.parts(reading()), count, None)
        return next(parts, None)
      except BaseException:
        parts = None
        raise

    while True:
      part, reason = self._taken(take, reading)
      if reason is not None:
        yield [self._completed(None, reading, reason)]
        return
      if part is None:
        return
      count += 1
      clips = zip(*part.values(), strict=True)
      yield [self._completed(dict(zip(part, x, strict=True)), reading) for x in clips]

  def _taken(self, take: Callable, reading: _Reading) -> tuple:
    """(what `take` gives, None), or (None, why it gives nothing)."""
    try:
      return self._patience.read(take, lambda: storage.files_of(reading.record)), None
    except DecodeError as error:
      return None, storage.reason_of(error)

  def _completed(self, arrays, reading, reason=None):
    arrays = self.sampler.empty() if reason is not None else arrays
    return row(arrays, reading.label, reading.index, reason)


class _Reading:
  """Reads the record at a position of a source, and keeps what has been read last."""

  def __init__(self, source: Source, index: int):
    self._source, self.index, self.record = source, index, None

  def __call__(self) -> Record:
    try:
      self.record = self._source[self.index]
    except DecodeError:  # its file may have been lost for a moment
      self.record = self._source[self.index]
    return self.record

  @property
  def label(self) -> int:
    return -1 if self.record is None else self.record.label
