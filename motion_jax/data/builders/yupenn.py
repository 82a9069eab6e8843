"""YUPENN dynamic scenes (Derpanis et al., CVPR 2012): 420 videos of 14 scenes."""

from __future__ import annotations

from motion_jax.config import UserError
from motion_jax.data.builders import plan

CLASSES = 14
VIDEOS = 30  # of each


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans YUPENN from a folder of videos per scene.

  There are no lists: every video is left out once. Ids are Scene/video.
  """
  if splits:
    raise UserError("YUPENN has no lists; leave --splits out")
  found = plan.find_media(source)
  groups: dict[str, list[str]] = {}
  for stem in found:
    folder, _, _ = stem.rpartition("/")
    groups.setdefault(folder.rpartition("/")[2], []).append(stem)
  if "" in groups:
    raise UserError(
      f"--source: {groups[''][0]} is in no class folder; expected a folder per scene"
    )
  classes = tuple(sorted(groups))
  plan.check_count("class folders in --source", len(classes), CLASSES, allow_missing)
  rows = []
  for label, name in enumerate(classes):
    plan.check_count(f"videos of {name}", len(groups[name]), VIDEOS, allow_missing)
    for stem in groups[name]:
      identifier = f"{name}/{stem.rpartition('/')[2]}"
      rows.append((identifier, found[stem], label, "train"))
  return plan.of_rows(rows, classes)
