"""A folder of the user's own, stored as a data set for fast reading."""

from __future__ import annotations

import os

from motion_jax.config import UserError
from motion_jax.data import folders, subsets
from motion_jax.data.builders import plan


def make_plan(
  source: str, kinds: tuple[str, ...], heldout_fraction: float
) -> plan.Plan:
  """Plans a data set with the splits `train` and `test` of a folder.

  Args:
    source: the folder, as `open_source` takes it.
    kinds: which media are used: "video", "frames", "image".
    heldout_fraction: share of the files that become the split `test`.

  Returns:
    The plan; ids are paths in the folder.

  Raises:
    UserError: if there are no such media.
  """
  # Of images alone a folder of numbered ones is a class, and no video.
  whole = folders.open_folder(source, "all", frame_folders="frames" in kinds)
  rows = [
    row
    for row in zip(whole.ids, whole.paths, whole.kinds, whole.labels, strict=True)
    if row[2] in kinds
  ]
  if not rows:
    raise UserError(f"--source: no {' or '.join(kinds)} in {source}")
  names, paths, _, labels = zip(*rows, strict=True)
  known = labels if whole.classes else None
  kept = subsets.held_out(paths, known, heldout_fraction)
  splits = ["test" if number in kept else "train" for number in range(len(rows))]
  places = [(os.path.join(whole.name, path), "") for path in paths]
  planned = zip(names, places, labels, splits, strict=True)
  planned = sorted(planned, key=lambda row: row[-1], reverse=True)
  return plan.of_rows(planned, whole.classes)
