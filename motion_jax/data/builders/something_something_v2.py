"""Something-Something V2 (Goyal et al., 2017): 174 actions with everyday objects."""

from __future__ import annotations

import json
import pathlib

from motion_jax.config import UserError
from motion_jax.data.builders import lists, plan

SIZES = {"train": 168_913, "val": 24_777}
CLASSES = 174
_FILES = {"labels": "labels", "train": "train", "val": "validation"}


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans Something-Something V2; its test part has no public labels and is left out.

  The videos <number>.webm are extracted from the official parts; the lists are
  labels.json, train.json and validation.json, also with something-something-v2- before
  their names. Ids are the numbers, the label of a video is that of its template.
  """
  folder = lists.folder(splits, "labels.json, train.json and validation.json")
  numbers = _read(folder, "labels")
  plan.check_count("labels.json", len(numbers), CLASSES, allow_missing)
  try:
    labels = {name: int(number) for name, number in numbers.items()}
  except (TypeError, ValueError):
    labels = {}
  if not labels or sorted(labels.values()) != list(range(len(labels))):
    raise UserError(
      "--splits: labels.json does not number its labels from 0 on; expected "
      '{"label": "0", ...}'
    )
  parts = {split: _read(folder, split) for split in SIZES}
  for split, entries in parts.items():
    plan.check_count(f"{_FILES[split]}.json", len(entries), SIZES[split], allow_missing)
  lookup = plan.Lookup(plan.find_media(source))
  rows = [
    (name, lookup(name), label, split)
    for split, entries in parts.items()
    for name, label in (_entry(entry, labels, split) for entry in entries)
  ]
  return plan.of_rows(rows, tuple(sorted(labels, key=labels.get)))


def _entry(entry, labels: dict[str, int], split: str) -> tuple[str, int]:
  """(id, label) of an entry of a list; its template has brackets, labels have none."""
  try:
    name, template = str(entry["id"]), str(entry["template"])
  except (TypeError, KeyError) as error:
    raise UserError(
      f"--splits: {_FILES[split]}.json has an entry without id or template: {entry}"
    ) from error
  label = labels.get(template.replace("[", "").replace("]", ""))
  if label is None:
    raise UserError(
      f"--splits: {_FILES[split]}.json: the template {template!r} of video {name} is "
      "not in labels.json; take both from the same download"
    )
  return name, label


def _read(root: pathlib.Path, part: str):
  names = [f"{_FILES[part]}.json", f"something-something-v2-{_FILES[part]}.json"]
  path = next((root / name for name in names if (root / name).is_file()), None)
  if path is None:
    raise UserError(f"--splits: neither {' nor '.join(names)} in {root}")
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"--splits: cannot read {path}: {error}; get it again") from error
  expected = dict if part == "labels" else list
  if not isinstance(content, expected):
    raise UserError(f"--splits: {path} is not what its name says; get it again")
  return content
