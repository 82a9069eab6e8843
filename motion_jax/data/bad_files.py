"""Keeps account of records that cannot be decoded."""

from __future__ import annotations

import logging
import os
import pathlib

import numpy as np

from motion_jax.config import UserError
from motion_jax.data import media
from motion_jax.data.clips import Sampler
from motion_jax.data.sources import Source

logger = logging.getLogger("motion_jax")


class BadFiles:
  """Names each bad record once and stops a run that has too many."""

  def __init__(
    self,
    source: Source,
    path: str | os.PathLike,
    max_fraction: float,
    sampler: Sampler | None = None,
  ):
    """Reads what is known already.

    Args:
      source: the records that batches come from.
      path: text file with a line `id<TAB>reason` for each bad record; it is created
        with the first one.
      max_fraction: largest tolerated share of bad records in [0, 1]; one is always
        tolerated.
      sampler: what batches take from a record, which may need more than its frames,
        such as prepared motion; None for the frames.
    """
    self._source = source
    self._path = pathlib.Path(path)
    self._max_fraction = max_fraction
    self._sampler = sampler
    self._bad: dict[str, str] = {}  # reasons by name
    if self._path.exists():
      lines = self._path.read_text("utf-8", "surrogateescape").split("\n")
      known = dict(line.partition("\t")[::2] for line in lines if line)
      names = {*map(source.id_of, range(len(source)))}
      self._bad = {name: known[name] for name in known if name in names}

  def __len__(self) -> int:
    """Returns how many distinct records are known to be bad."""
    return len(self._bad)

  def update(self, batch: dict[str, np.ndarray]) -> int:
    """Takes account of a batch.

    Args:
      batch: with `valid` [B] bool and `index` [B] int32; index -1 is padding.

    Returns:
      The number of bad rows in the batch.

    Raises:
      UserError: if more records are bad than tolerated.
    """
    bad = np.asarray(batch["index"])[~np.asarray(batch["valid"])]
    bad = bad[bad >= 0]
    for index in np.unique(bad).tolist():
      name = self._source.id_of(index)
      if name not in self._bad:
        self._bad[name] = self._reason(index)
        self._write(name, self._bad[name])
    self._check()
    return len(bad)

  def _reason(self, index: int) -> str:
    try:
      return media.diagnose(self._source[index], self._sampler)
    except OSError as error:
      return str(error)

  def _write(self, name: str, reason: str) -> None:
    logger.warning("cannot decode %s: %s", name, reason)
    with self._path.open("a", encoding="utf-8", errors="surrogateescape") as file:
      file.write(f"{name}\t{reason}\n")

  def _check(self) -> None:
    count, total = len(self._bad), len(self._source)
    if count > max(1, self._max_fraction * total):
      name, reason = next(reversed(self._bad.items()))
      raise UserError(
        f"{count} of the {total} records of {self._source.name} cannot be decoded, "
        f"more than the share of {self._max_fraction:g} that data.max_bad_fraction "
        f"allows, such as {name}: {reason}. They are listed in {self._path}; repair or "
        "remove them, or raise data.max_bad_fraction."
      )
