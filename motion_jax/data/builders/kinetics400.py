"""Kinetics-400 (Kay et al., 2017): ten-second clips of 400 actions."""

from __future__ import annotations

import csv
import math
import pathlib

from motion_jax.config import UserError
from motion_jax.data.builders import lists, plan

_PARTS = ("train", "val", "test")
_CLASSES = 400
_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans Kinetics-400 from clips and the official csv files.

  A clip, anywhere in the folder, is called <youtube id>_<start>_<end> (six digits each,
  or as in the csv file), or just <youtube id>; of a longer file, the csv file's seconds
  are taken. Ids are label/<youtube id>_<start>_<end>. The csv files have the columns
  label, youtube_id, time_start, time_end, split; parts without labels (the test csv)
  are left out. Clips that are missing are accepted in any case: many have left YouTube.
  """
  rows = _rows(lists.folder(splits, "the official csv files"))
  classes = tuple(sorted({row["label"] for row in rows}))
  plan.check_count("classes in the csv files", len(classes), _CLASSES, allow_missing)
  index = {name: number for number, name in enumerate(classes)}
  lookup = plan.Lookup(plan.find_media(source))

  def planned(row):
    video, start, end = row["youtube_id"], row["time_start"], row["time_end"]
    padded = f"{video}_{int(float(start)):06d}_{int(float(end)):06d}"
    place, seconds = lookup(padded, f"{video}_{start}_{end}"), ()
    if place is None:
      place, seconds = lookup(video), (float(start), float(end))
    return (
      f"{row['label']}/{padded}",
      place,
      index[row["label"]],
      row["split"],
      *seconds,
    )

  rows.sort(key=lambda row: _PARTS.index(row["split"]))
  return plan.of_rows(map(planned, rows), classes)


def _rows(folder: pathlib.Path) -> list[dict[str, str]]:
  """Reads the rows with labels of all csv files in a folder."""
  rows, heads = [], []
  for path in sorted(folder.glob("*.csv")):
    try:
      with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        heads.append(f"{path.name} has {', '.join(reader.fieldnames or ['none'])}")
        rows += [
          _checked(row, f"{path}, line {reader.line_num}")
          for row in reader
          if row.get("label")
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
      raise UserError(f"--splits: cannot read {path}: {error}") from error
  if not rows:
    found = "; ".join(heads) or "there are no csv files"
    raise UserError(f"--splits: no column `label` in {folder}: {found}")
  return rows


def _checked(row: dict[str, str], place: str) -> dict[str, str]:
  """A row of a csv file with its split as we call it."""
  missing = [name for name in _COLUMNS if not row.get(name)]
  if missing:
    raise UserError(
      f"--splits: {place}: no {', '.join(missing)}; expected the columns "
      f"{', '.join(_COLUMNS)}"
    )
  split = {"validate": "val", "validation": "val"}.get(row["split"], row["split"])
  if split not in _PARTS:
    raise UserError(f"--splits: {place}: the split is {split!r}; expected {_PARTS}")
  try:
    times = float(row["time_start"]), float(row["time_end"])
  except ValueError as error:
    raise UserError(f"--splits: {place}: no seconds: {error}") from error
  if not 0 <= times[0] < times[1] < math.inf:
    raise UserError(
      f"--splits: {place}: the times {times} are not 0 <= time_start < time_end"
    )
  return {**row, "split": split}
