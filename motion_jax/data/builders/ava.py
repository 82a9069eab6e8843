"""AVA actions (Gu et al., CVPR 2018): 80 actions of people, in boxes, once a second."""

from __future__ import annotations

import pathlib

from motion_jax.config import UserError
from motion_jax.data import ava_files
from motion_jax.data.box_rows import BoxRows
from motion_jax.data.builders import lists, plan

VIDEOS = {"train": 235, "val": 64}
ACTIONS, EVALUATED = 80, 60
_MARGIN = 1.5  # seconds that a record shows before and after its key frame


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans AVA: a record for each key frame, three seconds with it in the middle.

  The movies <video>.mkv, .mp4 or .webm have their full length. The lists are
  ava_train_v*.csv and ava_val_v*.csv, the excluded time stamps
  ava_*_excluded_timestamps_v*.csv, the list of actions ava_action_list_v*.pbtxt and
  that of the evaluated ones, ava_action_list_*activitynet*.pbtxt. Boxes of a person
  detector are taken from ava_train_predicted_boxes.csv and ava_val_predicted_boxes.csv,
  if they are there.

  Ids are video/second, four digits, and there are no labels of records. The notes have
  `actions` {number: name}, `evaluated` [numbers], `excluded` [ids], and by split
  `boxes` and `persons`, both `BoxRows`.
  """
  root = lists.folder(splits, "the csv and pbtxt files of AVA")
  notes = {**_actions(root, allow_missing), "boxes": {}, "persons": {}, "excluded": []}
  lookup = plan.Lookup(plan.find_media(source))
  planned = []
  for split, videos in VIDEOS.items():
    file = _one(root, f"ava_{split}_v*.csv")
    rows = ava_files.read_boxes(file)
    _check_actions(file, rows, notes["actions"])
    count = len({video for (video, _), *_ in rows})
    plan.check_count(f"{split} movies in the csv file", count, videos, allow_missing)
    excluded = ava_files.read_excluded(
      _one(root, f"ava_{split}_excluded_timestamps*.csv")
    )
    predicted = root / f"ava_{split}_predicted_boxes.csv"
    persons = (
      ava_files.read_boxes(predicted, scored=True) if predicted.is_file() else []
    )
    notes["boxes"][split] = BoxRows.of(map(_note, rows))
    notes["persons"][split] = BoxRows.of(map(_note, persons))
    notes["excluded"] += sorted(map(ava_files.record_id, excluded))
    for frame in sorted({row[0] for row in [*rows, *persons]} - excluded):
      seconds = frame[1] - _MARGIN, frame[1] + _MARGIN
      name = ava_files.record_id(frame)
      planned.append((name, lookup(frame[0]), -1, split, *seconds))
  return plan.of_rows(planned, None, notes)


def _actions(root: pathlib.Path, allow_missing: bool) -> dict:
  files = [*root.glob("ava_action_list*.pbtxt")]
  evaluated = [path for path in files if "activitynet" in path.name]
  whole = [path for path in files if path not in evaluated]
  if len(whole) != 1 or len(evaluated) != 1:
    raise UserError(
      f"--splits: found {sorted(path.name for path in files)} in {root}; expected one "
      "ava_action_list_v*.pbtxt of all actions and one *activitynet*.pbtxt of those "
      "that are evaluated"
    )
  actions = ava_files.read_actions(whole[0])
  chosen = ava_files.read_actions(evaluated[0])
  plan.check_count(whole[0].name, len(actions), ACTIONS, allow_missing)
  plan.check_count(evaluated[0].name, len(chosen), EVALUATED, allow_missing)
  named = {str(number): name for number, name in actions.items()}
  return {"actions": named, "evaluated": sorted(chosen)}


def _check_actions(file: pathlib.Path, rows, actions: dict[str, str]) -> None:
  unknown = sorted({action for *_, action, _ in rows} - {-1, *map(int, actions)})
  if unknown:
    raise UserError(
      f"--splits: {file}: the actions {unknown[:5]} are not in the list of actions; "
      "take both from the same version of AVA"
    )


def _one(root: pathlib.Path, pattern: str) -> pathlib.Path:
  found = sorted(root.glob(pattern))
  if len(found) != 1:
    names = ", ".join(path.name for path in found) or "none"
    raise UserError(f"--splits: expected one file {pattern} in {root}, found {names}")
  return found[0]


def _note(row: ava_files.BoxRow) -> list:
  frame, box, action, score = row
  return [ava_files.record_id(frame), *box, action, score]
