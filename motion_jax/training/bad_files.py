"""Keeps account of records that cannot be decoded, in all processes together."""

from __future__ import annotations

import logging
import os
import pathlib

import jax
import numpy as np

from motion_jax.config import UserError
from motion_jax.data.rows import for_devices
from motion_jax.data.sources import Source
from motion_jax.scale import hosts

logger = logging.getLogger("motion_jax")

_ANY = -1  # process: of a record that an earlier start has found
_TEXT = dict(encoding="utf-8", errors="surrogateescape")


class BadFiles:
  """Names each bad record once, and stops a run that has too many.

  A record is bad from when a process cannot decode its copy until that process, or a
  later start, decodes it again. Process 0 keeps the list of all.
  """

  def __init__(self, source: Source, path: str | os.PathLike, max_fraction: float):
    """Reads what is known already.

    Args:
      source: the records that batches come from.
      path: text file with a line `id<TAB>reason` for each bad record; it is created
        with the first one, and may have lines of other sources.
      max_fraction: largest tolerated share of bad records in [0, 1]; one is always
        tolerated.
    """
    self._source = source
    self._path = pathlib.Path(path)
    self._max_fraction = max_fraction
    self._bad: dict[int, tuple[str, int]] = {}  # reason and process, by index
    # What this process has found since all have told each other: None if it decodes.
    self._found: dict[int, str | None] = {}
    self._named: set[int] = set()
    self._process = jax.process_index()
    self._earlier = {}
    if self._process == 0 and self._path.exists():
      known = dict(line.partition("\t")[::2] for line in _lines(self._path))
      places = ((source.id_of(index), index) for index in range(len(source)))
      self._earlier = {i: (known[name], _ANY) for name, i in places if name in known}
      self._bad |= self._earlier
      self._named |= self._bad.keys()

  def __len__(self) -> int:
    """Returns how many distinct records are bad, as far as all have told each other."""
    return len(self._bad)

  def update(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes account of a batch of this process.

    Args:
      batch: with `valid` [B] bool, `index` [B] int32, -1 for padding, and `reason`
        [B] bytes.

    Returns:
      The batch as devices get it, without the reasons.
    """
    index, valid = batch["index"], batch["valid"]
    for row in np.flatnonzero(~valid & (index >= 0)):
      self._fails(int(index[row]), batch["reason"][row].decode("utf-8", "replace"))
    for number in {*index[valid].tolist()} & (self._bad.keys() | self._found.keys()):
      self._decodes(number)
    return for_devices(batch)

  def settle(self) -> None:
    """Lets all processes know what each has found; to be called in all of them.

    Raises:
      UserError: in every process, if more records are bad than tolerated.
    """
    before = dict(self._bad)
    told = hosts.everyones((self._earlier, self._found))
    self._earlier, self._found = {}, {}
    for process, (earlier, found) in enumerate(told):
      self._bad |= earlier
      for index, reason in found.items():
        if reason is not None:
          where = f" (process {process})" if len(told) > 1 else ""
          self._bad[index] = reason + where, process
        else:
          self._bad.pop(index, None)
    if self._process == 0 and self._bad != before:
      self._write(before)
    self._check()

  def _fails(self, index: int, reason: str) -> None:
    if index in self._bad:
      self._found.pop(index, None)
    else:
      self._found[index] = reason
    if index not in self._named:
      self._named.add(index)
      logger.warning("cannot decode %s: %s", self._source.id_of(index), reason)

  def _decodes(self, index: int) -> None:
    if index not in self._bad:
      del self._found[index]
    elif self._bad[index][1] in (self._process, _ANY):
      self._found[index] = None

  def _write(self, before: dict) -> None:
    """Replaces the lines of what has changed; those of other sources stay."""
    gone = {self._source.id_of(index) for index in before.keys() | self._bad.keys()}
    lines = _lines(self._path) if self._path.exists() else []
    lines = [line for line in lines if line.partition("\t")[0] not in gone]
    lines += [f"{self._source.id_of(i)}\t{why}" for i, (why, _) in self._bad.items()]
    temporary = self._path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines), **_TEXT)
    os.replace(temporary, self._path)

  def _check(self) -> None:
    count, total = len(self._bad), len(self._source)
    if count > max(1, self._max_fraction * total):
      index, (reason, _) = next(reversed(self._bad.items()))
      raise UserError(
        f"{count} of the {total} files of {self._source.name} cannot be decoded, "
        f"more than the share of {self._max_fraction:g} that data.max_bad_fraction "
        f"allows, such as {self._source.id_of(index)}: {reason}. They are listed in "
        f"{self._path}; repair them, or raise data.max_bad_fraction, with "
        "train.allow_config_change=True."
      )


def _lines(path: pathlib.Path) -> list[str]:
  return [line for line in path.read_text(**_TEXT).split("\n") if line]
