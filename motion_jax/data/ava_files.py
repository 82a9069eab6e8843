"""The text files of AVA (Gu et al., CVPR 2018): boxes, actions, excluded seconds.

A key frame is named (video, second). Boxes are (x1, y1, x2, y2) as shares of the
frame's width and height.
"""

from __future__ import annotations

import csv
import os
import pathlib
import re
from collections.abc import Iterator

from motion_jax.config import UserError

KeyFrame = tuple[str, int]
# Key frame, box, action (-1: a person of unknown action), score (1 for annotations).
BoxRow = tuple[KeyFrame, tuple[float, float, float, float], int, float]


def read_boxes(path: str | os.PathLike) -> list[BoxRow]:
  """Reads annotations, person boxes of a detector, or results.

  Args:
    path: csv without header: video, second, x1, y1, x2, y2, action, and either nothing
      (annotations without a person's number), the person's number (an integer, as in
      the official annotations) or a score with a decimal point (detections). The action
      is empty where it is unknown.

  Raises:
    UserError: for a line that is none of these; the message has its number.
  """
  return [_box(path, number, row) for number, row in _rows(path)]


def read_excluded(path: str | os.PathLike) -> set[KeyFrame]:
  """Reads the key frames that are left out of training and evaluation.

  Args:
    path: csv without header: video, second.

  Raises:
    UserError: for other lines.
  """
  try:
    return {(row[0], int(float(row[1]))) for _, row in _rows(path)}
  except (IndexError, ValueError) as error:
    raise UserError(f"{path} must have lines `video,second`: {error}") from error


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


def _box(path, number: int, row: list[str]) -> BoxRow:
  try:
    video, second, *corners = row[:6]
    x1, y1, x2, y2 = map(float, corners)
    action = int(row[6]) if row[6].strip() else -1
    is_score = len(row) > 7 and not row[7].strip().lstrip("-").isdecimal()
    score = float(row[7]) if is_score else 1.0
    frame = (video, int(float(second)))
  except (IndexError, ValueError) as error:
    raise UserError(
      f"{path}, line {number}: {','.join(row)!r} is not video,second,x1,y1,x2,y2,"
      f"action[,person or score] ({error})"
    ) from error
  if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1 and 0 <= score <= 1):
    raise UserError(
      f"{path}, line {number}: box {(x1, y1, x2, y2)} with score {score}; expected "
      "shares of the frame's sides, and a score, in [0, 1]"
    )
  return frame, (x1, y1, x2, y2), action, score


def _rows(path) -> Iterator[tuple[int, list[str]]]:
  lines = _read(path).splitlines()
  for number, row in enumerate(csv.reader(lines), 1):
    if row:
      yield number, row


def _read(path) -> str:
  try:
    return pathlib.Path(path).expanduser().read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"cannot read {path}: {error}") from error
