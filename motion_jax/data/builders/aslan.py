"""ASLAN (Kliper-Gross et al., TPAMI 2012): is it the same action? 6,000 pairs."""

from __future__ import annotations

import pathlib

import numpy as np

from motion_jax.config import UserError
from motion_jax.data.builders import lists, plan

FOLDS = 10
PAIRS = 600  # of each fold; half of them show the same action
_FILE, _TABLE = "View2.mat", "action_splits_pairs"


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans ASLAN: the videos of the pairs of its second view, which results are of.

  The videos are 0001.avi to 3697.avi (or .mp4), the list is the official View2.mat. Ids
  are four digits, labels the numbers of the actions, from 0 on. The notes have `pairs`:
  [id, id, 1 for the same action or else 0, fold from 0 on].
  """
  table = _read(lists.folder(splits, f"the official {_FILE}") / _FILE)
  plan.check_count(f"folds of {_FILE}", table.shape[2], FOLDS, allow_missing)
  plan.check_count(f"pairs per fold of {_FILE}", table.shape[0], PAIRS, allow_missing)
  pairs, actions = [], {}
  for fold in range(table.shape[2]):
    same = int(table[:, 2, fold].sum())
    plan.check_count(
      f"same pairs of fold {fold + 1}", same, table.shape[0] // 2, allow_missing
    )
    for one, other, is_same, action, other_action in table[:, :, fold].tolist():
      pairs.append([f"{one:04d}", f"{other:04d}", is_same, fold])
      actions |= {f"{one:04d}": action - 1, f"{other:04d}": other_action - 1}
  lookup = plan.Lookup(plan.find_media(source))
  rows = [(name, lookup(name), actions[name], "train") for name in sorted(actions)]
  return plan.of_rows(rows, None, {"pairs": pairs})


def _read(path: pathlib.Path) -> np.ndarray:
  """The table [pairs, 5, folds] int: two samples, same, their two actions."""
  import scipy.io

  try:
    content = scipy.io.loadmat(path)
  except Exception as error:  # of a damaged file, nearly anything
    raise UserError(f"--splits: cannot read {path}: {error}") from error
  if _TABLE not in content:
    raise UserError(f"--splits: {path} has no table {_TABLE}; get it again")
  table = content[_TABLE]
  is_table = table.ndim == 3 and table.shape[1] == 5 and table.dtype.kind in "iuf"
  if (
    not is_table
    or not np.isin(table[:, 2], (0, 1)).all()
    or not (table[:, [0, 1, 3, 4]] >= 1).all()
  ):
    raise UserError(
      f"--splits: {_TABLE} of {path} has shape {table.shape}, type {table.dtype}; "
      "expected numbers [pairs, 5, folds], with 0 or 1 in the third column and from 1 "
      "on in the others; get it again"
    )
  return table.astype(np.int64)
