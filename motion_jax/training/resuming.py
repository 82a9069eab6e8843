"""Whether a run goes on under a config: which settings may differ, and which not."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from motion_jax.config import UserError, completed, difference
from motion_jax.scale import hosts
from motion_jax.training.checkpoint import ENCODER_ONLY

_RECORDS = "data.records:"  # a hash, which says nothing to a reader


def check_resumable(
  stored: Mapping[str, Any], config: ConfigDict, workdir: pathlib.Path
) -> None:
  """Raises UserError, with the keys, unless a run goes on under a config.

  Args:
    stored: the config that its last checkpoint was written with.
    config: the one that it is to go on with.
    workdir: of the run.
  """
  if stored.get(ENCODER_ONLY):
    raise UserError(
      f"{workdir} holds an encoder alone, nothing to go on with; choose another "
      "--workdir (configs/finetune.py starts from it by --config.init_from)"
    )
  current = completed(config.to_dict())
  free = _free_settings(stored["data"], current["data"])
  rows = [
    "data: files were added, removed or renamed" if row.startswith(_RECORDS) else row
    for row in difference(stored, current)
    if not re.match(f"({free}):", row)
  ]
  if rows and not config.train.allow_config_change:
    raise UserError(
      f"{workdir} holds a run with another config:\n  "
      + "\n  ".join(rows)
      + "\nchoose another --workdir, give the values that it had, or go on with the "
      "changes by --config.train.allow_config_change=True"
    )


def _free_settings(stored: dict, current: dict) -> str:
  """A pattern of the settings that may differ, given both sections `data`."""
  free = r"train\.(allow_config_change|skip_damaged)|data\.(threads|workers)"
  free += r"|eval\.online_videos"  # changes nothing that is learned
  if stored["name"] == current["name"] != "folder":
    free += r"|data\.(heldout_by|heldout_fraction|frame_folders)"  # of folders alone
  before = stored["records"]  # '' of older runs
  if not before:
    free += r"|data\.records"
  if before == current["records"] or (not before and jax.process_count() > 1):
    return f"{free}|{hosts.OWN_SETTINGS}"  # of the same records in another place
  return free if before else rf"{free}|data\.data_dir"
