"""Kinetics-400 (Kay et al., 2017): ten-second clips of 400 actions."""

from __future__ import annotations

import csv
import pathlib

from motion_jax.config import UserError
from motion_jax.data.builders import base, plan

_PARTS = ("train", "val", "test")
_CLASSES = 400


class Kinetics400(base.RecordBuilder, skip_registration=True):
  """Writes Kinetics-400."""

  DESCRIPTION = __doc__


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans Kinetics-400 from clips and the official csv files.

  Args:
    source: folder of the clips, in any arrangement. A clip is called
      <youtube id>_<start>_<end> (six digits each, or as in the csv file), or just
      <youtube id>; of a longer file, the csv file's seconds are taken.
    splits: folder of csv files with columns label, youtube_id, time_start, time_end,
      split. Parts without labels (the test csv) are left out.
    allow_missing: accept lists of other sizes. Clips that are missing are accepted in
      any case: many have left YouTube.

  Returns:
    The plan; ids are label/<youtube id>_<start>_<end>.

  Raises:
    UserError: if something is missing.
  """
  rows = _rows(plan.require(splits, "splits", "the folder of the official csv files"))
  classes = tuple(sorted({row["label"] for row in rows}))
  plan.check_count("classes in the csv files", len(classes), _CLASSES, allow_missing)
  index = {name: number for number, name in enumerate(classes)}
  lookup = plan.Lookup(plan.find_videos(source))
  items, missing = [], []
  for row in sorted(rows, key=lambda row: _PARTS.index(row["split"])):
    video, start, end = row["youtube_id"], row["time_start"], row["time_end"]
    padded = f"{video}_{int(float(start)):06d}_{int(float(end)):06d}"
    name = f"{row['label']}/{padded}"
    place, times = lookup(padded, f"{video}_{start}_{end}"), {}
    if place is None:
      place, times = lookup(video), {"start": float(start), "end": float(end)}
    if place is None:
      missing.append(name)
    else:
      label, split = index[row["label"]], row["split"]
      items.append(plan.Item(name, place[0], label, split, place[1], **times))
  return plan.Plan(tuple(items), classes, tuple(missing))


def _rows(splits: str) -> list[dict[str, str]]:
  """Reads the rows with labels of all csv files in a folder."""
  rows = []
  for path in sorted(pathlib.Path(splits).expanduser().glob("*.csv")):
    with path.open(newline="", encoding="utf-8") as file:
      rows += [row for row in csv.DictReader(file) if row.get("label")]
  if not rows:
    raise UserError(f"--splits: no csv files with a column `label` in {splits}")
  for row in rows:
    row["split"] = {"validate": "val", "validation": "val"}.get(
      row.get("split", ""), row.get("split", "")
    )
    if row["split"] not in _PARTS:
      raise UserError(
        f"--splits: a row has the split {row['split']!r}; expected {_PARTS}"
      )
  return rows
