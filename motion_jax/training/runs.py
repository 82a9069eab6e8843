"""Finds the run, and the checkpoint of it, that a path names."""

import difflib
import os
import pathlib

from motion_jax.config import UserError, local_path
from motion_jax.scale import hosts
from motion_jax.training.checkpoint import Checkpoints


def locate(
  path: str | os.PathLike, step: int | None = None
) -> tuple[pathlib.Path, int]:
  """Finds a checkpoint, of several processes the same one in each.

  Args:
    path: folder of a run, or one of its checkpoints (`run/checkpoints/120`).
    step: which checkpoint; None for the latest.

  Returns:
    (folder of the run, step).

  Raises:
    UserError: if there is no such complete checkpoint.
  """
  path = local_path(path)
  if path.parent.name == "checkpoints" and path.name.isdecimal():
    path, step = path.parents[1], int(path.name)
  if hosts.is_file(path):
    raise UserError(
      f"{path} is no run; of PyTorch weights this makes one: python -m "
      f"motion_jax.convert --weights={path} --config=... --workdir=..."
    )
  if not hosts.largest((path / "checkpoints").is_dir()):
    raise UserError(
      f"no checkpoint in {path}; train first, or give another folder{_nearest(path)}"
    )
  checkpoints = Checkpoints(path)
  found = checkpoints.latest_step()
  if step is not None:
    found = step if checkpoints.has(step) else None
  steps = checkpoints.steps()
  checkpoints.close()
  if found is None:
    raise UserError(
      f"{path} holds no complete checkpoint{f' of step {step}' if step else ''}; "
      f"complete are those of {steps}"
    )
  return path, found


def _nearest(path):
  """' such as ...', the run beside a folder with the most similar name, or ''."""
  runs = {found.parent.name for found in path.parent.glob("*/checkpoints")}
  close = difflib.get_close_matches(path.name, runs, n=1)
  return f" such as {path.parent / close[0]}" if close else ""
