"""YUPENN dynamic scenes (Derpanis et al., CVPR 2012): 420 videos of 14 scenes."""

from __future__ import annotations

from motion_jax.config import UserError
from motion_jax.data.builders import plan

CLASSES = 14
VIDEOS = 30  # of each


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans YUPENN from a folder of videos per scene.

  Args:
    source: folder or zip archive of the class folders.
    splits: empty; there are none, every video is left out once.
    allow_missing: accept other numbers of scenes and videos.

  Returns:
    The plan; ids are Scene/video.

  Raises:
    UserError: if there are no class folders, or their numbers are others.
  """
  if splits:
    raise UserError("YUPENN has no lists; leave --splits out")
  found = plan.find_videos(source)
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
  items = []
  for label, name in enumerate(classes):
    plan.check_count(f"videos of {name}", len(groups[name]), VIDEOS, allow_missing)
    for stem in groups[name]:
      path, member = found[stem]
      identifier = f"{name}/{stem.rpartition('/')[2]}"
      items.append(plan.Item(identifier, path, label, "train", member))
  return plan.Plan(tuple(items), classes)
