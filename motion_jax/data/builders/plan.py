"""What a data set will hold, before any medium is opened."""

from __future__ import annotations

import dataclasses
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from motion_jax.config import UserError, local_path
from motion_jax.data.files import (
  IMAGE_SUFFIXES,
  VIDEO_SUFFIXES,
  PassedOver,
  readable,
  walk,
)

logger = logging.getLogger("motion_jax")

_SHOWN = 5  # missing files named in a message


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


def find_media(source: str, suffixes: Iterable[str]) -> dict[str, tuple[str, str]]:
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
  suffixes = frozenset(suffixes)
  path = local_path(source)
  if path.suffix.lower() in (".rar", ".7z", ".tar", ".gz", ".tgz"):
    raise UserError(
      f"{path} cannot be read as it is. Extract it first, for example with "
      "`unrar x FILE` or `bsdtar -xf FILE`, and give the folder as --source."
    )
  if not path.exists():
    raise UserError(f"--source: there is no {path}")
  if path.is_file():
    if not zipfile.is_zipfile(path):
      raise UserError(f"--source: {path} is neither a folder nor a zip archive")
    with zipfile.ZipFile(path) as archive:
      found = {name: (str(path), name) for name in archive.namelist()}
  else:
    found = {}
    for inside, names in walk(path):
      for name in names:
        found[f"{inside}/{name}" if inside else name] = (
          os.path.join(path, inside, name),
          "",
        )
  chosen, others = {}, PassedOver()
  for name in sorted(found):
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in suffixes:
      others.add(name)
    elif not os.path.basename(name).startswith("."):
      chosen[readable(stem)] = found[name]
  if not chosen:
    raise UserError(
      f"--source: no files that end in {' '.join(sorted(suffixes))} in {path} (files: "
      f"{others or 'none'})"
    )
  return chosen


def find_videos(source: str) -> dict[str, tuple[str, str]]:
  """Finds the videos of a folder or archive; see `find_media`."""
  return find_media(source, VIDEO_SUFFIXES)


def find_images(source: str) -> dict[str, tuple[str, str]]:
  """Finds the images of a folder or archive; see `find_media`."""
  return find_media(source, IMAGE_SUFFIXES)


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


def role_items(
  roles: Mapping[str, Sequence[str]],
  labels: Mapping[str, int],
  places: Mapping[str, tuple[str, str] | None],
  classes: tuple[str, ...],
) -> Plan:
  """Plans a data set with several official splits; each video is stored once.

  Args:
    roles: for each video its role in every official split: "train", "test" or
      "unused". Videos of equal roles make up one TFDS split, as in train_test_unused.
    labels: class index of each video.
    places: (path, member) of each video, or None if it is missing.
    classes: names of the labels.

  Returns:
    The plan.
  """
  items, missing = [], []
  for name in sorted(roles, key=lambda name: (roles[name], name)):
    if places[name] is None:
      missing.append(name)
    else:
      path, member = places[name]
      items.append(Item(name, path, labels[name], "_".join(roles[name]), member))
  return Plan(tuple(items), classes, tuple(missing))
