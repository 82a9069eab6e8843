"""The text files of AVA (Gu et al., CVPR 2018): boxes, actions, excluded seconds.

A key frame is named (video, second). Boxes are (x1, y1, x2, y2) as shares of the
frame's width and height.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator

from motion_jax.config import UserError, local_path

KeyFrame = tuple[str, int]
# Key frame, box, action (-1: a person of unknown action), score (1 for annotations).
BoxRow = tuple[KeyFrame, tuple[float, float, float, float], int, float]


def read_boxes(path: str | os.PathLike, *, scored: bool = False) -> list[BoxRow]:
  """Reads annotations, the boxes of a person detector, or the results of a method.

  Args:
    path: csv without header: video, second, x1, y1, x2, y2, action and, of annotations,
      the number of the person, if any. The action is empty where it is unknown.
    scored: the column after the action is a score, as of detectors and results.

  Raises:
    UserError: for a line that is none of these; the message has its number.
  """
  return [_box(path, number, row, scored) for number, row in _rows(path)]


def read_excluded(path: str | os.PathLike) -> set[KeyFrame]:
  """Reads the key frames that are left out of training and evaluation.

  Args:
    path: csv without header: video, second.

  Raises:
    UserError: for other lines.
  """
  excluded = set()
  for number, row in _rows(path):
    try:
      excluded.add((row[0], int(float(row[1]))))
    except (IndexError, ValueError, OverflowError) as error:
      raise UserError(
        f"{path}, line {number}: {','.join(row)!r} is not video,second ({error})"
      ) from error
  return excluded


def read_actions(path: str | os.PathLike) -> dict[int, str]:
  """Reads an official action list: {number from 1 on: name}.

  Args:
    path: pbtxt; `item` or `label` blocks with name and id (or label_id).

  Raises:
    UserError: if it holds no actions, or a number twice.
  """
  text = _read(path)
  found = []
  for block in re.findall(r"(?:item|label)\s*\{([^}]*)\}", text):
    name = re.search(r"\bname:\s*\"((?:[^\"\\]|\\.)*)\"", block)
    number = re.search(r"\b(?:label_)?id:\s*(\d+)", block)
    if name and number:
      found.append((int(number[1]), name[1]))
  actions = dict(found)
  if not found or len(actions) < len(found):
    raise UserError(
      f"{path} is no action list: {len(found)} actions, {len(actions)} numbers; "
      "expected items with a name and an id"
    )
  return actions


def record_id(frame: KeyFrame) -> str:
  """Returns the identifier of a key frame's record: video/second, four digits."""
  return f"{frame[0]}/{frame[1]:04d}"


def _box(path, number: int, row: list[str], scored: bool) -> BoxRow:
  columns = "video,second,x1,y1,x2,y2,action" + (",score" if scored else "[,person]")
  try:
    video, second, *corners = row[:6]
    x1, y1, x2, y2 = map(float, corners)
    action = int(row[6]) if row[6].strip() else -1
    score = float(row[7]) if scored else 1.0
    frame = (video, int(float(second)))
  except (IndexError, ValueError, OverflowError) as error:
    raise UserError(
      f"{path}, line {number}: {','.join(row)!r} is not {columns} ({error})"
    ) from error
  box = (x1, y1, x2, y2)
  if not all(map(math.isfinite, (*box, score))):
    raise UserError(f"{path}, line {number}: {box} or the score {score} is not finite")
  # Detectors may exceed the frame by a little, annotations may not.
  if not scored and not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):
    raise UserError(
      f"{path}, line {number}: box {box}; expected shares of the frame's sides in "
      "[0, 1]"
    )
  return frame, box, action, score


def _rows(path) -> Iterator[tuple[int, list[str]]]:
  lines = _read(path).splitlines()
  try:
    for number, row in enumerate(csv.reader(lines), 1):
      if row:
        yield number, row
  except csv.Error as error:
    raise UserError(f"cannot read {path}: {error}") from error


def _read(path) -> str:
  try:
    return local_path(path).read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"cannot read {path}: {error}") from error
