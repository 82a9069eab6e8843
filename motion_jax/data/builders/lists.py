"""Official lists: their folder, their lines, and what to say of wrong ones."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from motion_jax.config import UserError, local_path
from motion_jax.data.builders import plan

SPLITS = 3  # official ones of UCF101 and HMDB51


class Line(NamedTuple):
  """A line of an official list: its fields, and where it is, for messages."""

  fields: tuple[str, ...]
  place: str


def folder(splits: str, what: str) -> pathlib.Path:
  """Returns the folder that --splits must name.

  Raises:
    UserError: if it is missing or no folder; the message has `what` it is to hold.
  """
  path = local_path(plan.require(splits, "splits", f"the folder of {what}"))
  if not path.is_dir():
    raise UserError(f"--splits: {path} is no folder; give the one of {what}")
  return path


def read(path: pathlib.Path, pattern: str, columns: str) -> Iterator[Line]:
  """Reads the lines of an official list that are not empty.

  Args:
    path: of the list.
    pattern: regular expression of a whole line; its groups are the line's fields.
    columns: what a line holds, in words.

  Yields:
    The lines.

  Raises:
    UserError: if the list cannot be read, or a line does not fit; it names both.
  """
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"--splits: cannot read {path}: {error}") from error
  for number, line in enumerate(map(str.strip, lines), 1):
    place = f"--splits: {path}, line {number}"
    match = re.fullmatch(pattern, line)
    if line and not match:
      raise UserError(f"{place}: {line!r} is not `{columns}`; is it the right list?")
    if line:
      yield Line(match.groups(), place)


def set_role(roles: dict, video: str, number: int, role: str, place: str) -> None:
  """Notes what a video is in official split `number`; see `plan.of_roles`.

  Raises:
    UserError: if another line has said it before.
  """
  known = roles.setdefault(video, ["unused"] * SPLITS)
  if known[number] != "unused":
    raise UserError(
      f"{place}: {video} is in {known[number]} of split {number + 1} already; get the "
      "official lists again"
    )
  known[number] = role
