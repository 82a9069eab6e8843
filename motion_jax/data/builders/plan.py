"""What a data set will hold, before any medium is opened.

The module of each data set has a function `make_plan`: from the folder (or zip archive)
of its media and the folder of its official lists, and whether to accept media that are
missing and lists of other sizes than the official ones, it makes a `Plan`. It raises
UserError if something is missing; the message tells what.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from motion_jax.config import UserError, local_path
from motion_jax.data.files import (
  VIDEO_SUFFIXES,
  counts_text,
  find,
  readable,
)

logger = logging.getLogger("motion_jax")

_SHOWN = 5  # missing files named in a message
_MOST_SHARDS = 256  # of a data set
_LEAST_RECORDS = 8  # of a shard


@dataclasses.dataclass(frozen=True)
class Item:
  """One record to be written.

  Attributes:
    id: its identifier.
    path: file or frame folder; or a zip archive, if `member` is given.
    label: class index, or -1.
    split: TFDS split that it is written to.
    member: name of the file in the archive.
    start, end: seconds of the file that are kept, where it is longer than that; all of
      it if `end` is 0.
  """

  id: str
  path: str
  label: int
  split: str
  member: str = ""
  start: float = 0.0
  end: float = 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
  """All records of a data set, in the order in which they will be stored.

  Attributes:
    items: the records.
    classes: names of the labels, or None.
    missing: identifiers of records that the lists promise and the source lacks.
    notes: what a protocol needs besides the records, such as pairs; JSON values.
  """

  items: tuple[Item, ...]
  classes: tuple[str, ...] | None
  missing: tuple[str, ...] = ()
  notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def find_media(
  source: str, suffixes: frozenset[str] = VIDEO_SUFFIXES
) -> dict[str, tuple[str, str]]:
  """Finds files in a folder or zip archive.

  Args:
    source: path of the folder or archive.
    suffixes: endings that count, in lower case.

  Returns:
    (path, member) of every file, by its path in the source without the ending, as
    text that can be stored; see `files.readable`.

  Raises:
    UserError: if there is no such folder or archive, or nothing in it.
  """
  path = local_path(source)
  if path.suffix.lower() in (".rar", ".7z", ".tar", ".gz", ".tgz"):
    raise UserError(
      f"{path} cannot be read as it is. Extract it first, for example with "
      "`unrar x FILE` or `bsdtar -xf FILE`, and give the folder as --source."
    )
  if not path.exists():
    raise UserError(f"--source: there is no {path}")
  if path.is_file() and not zipfile.is_zipfile(path):
    raise UserError(f"--source: {path} is neither a folder nor a zip archive")
  names, others = find(path, suffixes)
  if not names:
    raise UserError(
      f"--source: no files that end in {' '.join(sorted(suffixes))} in {path} (files: "
      f"{counts_text(others)})"
    )
  return {
    readable(os.path.splitext(name)[0]): (
      (str(path), name) if path.is_file() else (os.path.join(path, name), "")
    )
    for name in names
  }


class Lookup:
  """Finds files by name, with or without the folder that they are in."""

  def __init__(self, found: Mapping[str, tuple[str, str]]):
    self._by_end: dict[str, tuple[str, str] | None] = {}
    for stem, place in found.items():
      parts = stem.split("/")
      for depth in (1, 2):
        end = "/".join(parts[-depth:])
        # A name that several files have finds none of them.
        is_new = end not in self._by_end or self._by_end[end] == place
        self._by_end[end] = place if is_new else None

  def __call__(self, *names: str) -> tuple[str, str] | None:
    """Returns (path, member) of the first name that is known."""
    for name in names:
      if self._by_end.get(name):
        return self._by_end[name]
    return None


def check_missing(plan: Plan, allow_missing: bool) -> None:
  """Stops, or warns, if the source lacks records that the official lists promise.

  Raises:
    UserError: with the number and the first names.
  """
  if not plan.items and not plan.missing:
    raise UserError("--splits: the lists name no files; get the official lists again")
  if not plan.items:
    raise UserError(
      f"none of the {len(plan.missing)} listed files is in --source; the first one is "
      f"{plan.missing[0]}. Is it the right folder?"
    )
  names = ", ".join(plan.missing[:_SHOWN])
  if plan.missing and allow_missing:
    logger.warning(
      "%d of %d listed files are missing and left out: %s%s",
      len(plan.missing),
      len(plan.missing) + len(plan.items),
      names,
      ", ..." if len(plan.missing) > _SHOWN else "",
    )
  elif plan.missing:
    raise UserError(
      f"{len(plan.missing)} of {len(plan.missing) + len(plan.items)} listed files are "
      f"not in --source: {names}, ... Complete it, or go on without them with "
      "--allow_missing."
    )


def check_count(what: str, found: int, official: int, allow_missing: bool) -> None:
  """Stops if a list has another size than the official one.

  Raises:
    UserError: with both numbers.
  """
  if found != official and not allow_missing:
    raise UserError(
      f"{what}: found {found} entries, the official number is {official}. Get the "
      "official lists again, or go on with these with --allow_missing."
    )


def require(value: str, flag: str, what: str) -> str:
  """Returns the value of a flag that must be given."""
  if not value:
    raise UserError(f"--{flag} is missing: {what}")
  return value


def of_rows(
  rows: Iterable[tuple], classes: tuple[str, ...] | None, notes: Mapping[str, Any] = {}
) -> Plan:
  """Plans records in their order.

  Args:
    rows: (id, what `Lookup` finds of it, label, split, further fields of `Item`).
    classes, notes: of the plan.
  """
  items, missing = [], []
  for name, place, label, split, *more in rows:
    if place is None:
      missing.append(name)
    else:
      items.append(Item(name, place[0], label, split, place[1], *more))
  return Plan(tuple(items), classes, tuple(missing), notes)


def of_roles(
  source: str, roles: Mapping[str, Sequence[str]], classes: tuple[str, ...]
) -> Plan:
  """Plans a data set with several official splits; each video is stored once.

  Args:
    source: folder or zip archive of the videos.
    roles: of class/video, its role in every official split: "train", "test" or
      "unused". Videos of equal roles make up one TFDS split, as in train_test_unused.
    classes: names of the labels.
  """
  lookup = Lookup(find_media(source))
  names = sorted(roles, key=lambda name: (roles[name], name))
  return of_rows(
    (
      (
        name,
        lookup(name, name.partition("/")[2]),
        classes.index(name.partition("/")[0]),
        "_".join(roles[name]),
      )
      for name in names
    ),
    classes,
  )


@dataclasses.dataclass(frozen=True)
class Shard:
  """Some records of a split, in order; `number` of `of` shards of that split."""

  split: str
  number: int
  of: int
  items: tuple[Item, ...]


def split_up(items: Sequence[Item]) -> list[Shard]:
  """Deals the records of every split out to shards, in order."""
  shards, size = [], max(_LEAST_RECORDS, -(-len(items) // _MOST_SHARDS))
  for split in dict.fromkeys(item.split for item in items):
    own = [item for item in items if item.split == split]
    parts = [own[start : start + size] for start in range(0, len(own), size)]
    shards += [
      Shard(split, number, len(parts), tuple(part)) for number, part in enumerate(parts)
    ]
  return shards
