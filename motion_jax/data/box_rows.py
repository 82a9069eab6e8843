"""Boxes of people on key frames in columns: AVA has about a million of them.

In a prepared data set they are files beside the shards, and its notes have their names.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_TABLES = ("boxes", "persons")  # notes that hold, by split, such rows
_FILE = "{}_{}.npz"


class BoxRows(Sequence):
  """A sequence of rows [id, x1, y1, x2, y2, action, score].

  Attributes:
    names: [F] bytes, the identifiers of the frames, sorted.
    frame: [N] int32, the position in `names` of each row's.
    boxes: [N, 4] float64, (x1, y1, x2, y2) as shares of the frame's sides.
    actions: [N] int16; -1: of no known action.
    scores: [N] float64.
  """

  def __init__(self, names, frame, boxes, actions, scores):
    self.names, self.frame, self.boxes = names, frame, boxes
    self.actions, self.scores = actions, scores

  @classmethod
  def of(cls, rows: Iterable[Sequence]) -> BoxRows:
    """Puts rows into columns."""
    if isinstance(rows, cls):
      return rows
    rows = [*rows]
    ids = np.array([row[0].encode() for row in rows], np.bytes_)
    names, frame = np.unique(ids, return_inverse=True)
    return cls(
      names,
      frame.astype(np.int32),
      np.array([row[1:5] for row in rows], np.float64).reshape(-1, 4),
      np.array([row[5] for row in rows], np.int16),
      np.array([row[6] for row in rows], np.float64),
    )

  def __len__(self) -> int:
    return len(self.frame)

  def __getitem__(self, index: int) -> list:
    name = self.names[self.frame[index]].decode()
    values = self.boxes[index].tolist(), self.actions[index], self.scores[index]
    return [name, *values[0], int(values[1]), float(values[2])]

  def frames(self) -> list[str]:
    """The identifier of each row's frame."""
    names = [name.decode() for name in self.names.tolist()]
    return [names[number] for number in self.frame.tolist()]


def stored(notes: Mapping[str, Any], folder: pathlib.Path) -> dict:
  """Writes the tables of notes to files; returns the notes with the files' names."""

  def write(kind, split, rows):
    name = _FILE.format(kind, split)
    np.savez(folder / name, **vars(BoxRows.of(rows)))
    return name

  return _replaced(notes, write)


def loaded(notes: Mapping[str, Any], folder: pathlib.Path) -> dict:
  """Undoes `stored`; older data sets have the rows themselves in their notes."""

  def read(kind, split, found):
    if not isinstance(found, str):
      return BoxRows.of(found)
    with np.load(folder / found) as columns:
      return BoxRows(**columns)

  return _replaced(notes, read)


def _replaced(notes, function: Callable) -> dict:
  tables = {
    kind: {split: function(kind, split, rows) for split, rows in notes[kind].items()}
    for kind in _TABLES
    if kind in notes
  }
  return {**notes, **tables}
