"""A folder of the user's own, stored as a data set for fast reading."""

from __future__ import annotations

import os

from motion_jax.config import UserError
from motion_jax.data import folders
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
  whole = folders.open_folder(source, "all")
  heldout = {}
  if len(whole) > 1 and heldout_fraction:
    part = folders.open_folder(source, "heldout", heldout_fraction=heldout_fraction)
    heldout = set(part.ids)
  items = [
    plan.Item(
      name,
      os.path.join(whole.name, path),
      label,
      "test" if name in heldout else "train",
    )
    for name, path, kind, label in zip(
      whole.ids, whole.paths, whole.kinds, whole.labels, strict=True
    )
    if kind in kinds
  ]
  if not items:
    raise UserError(f"--source: no {' or '.join(kinds)} in {source}")
  items.sort(key=lambda item: item.split, reverse=True)
  return plan.Plan(tuple(items), whole.classes)
