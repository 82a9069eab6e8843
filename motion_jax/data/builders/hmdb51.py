"""HMDB51 (Kuehne et al., 2011): 6,766 videos, 51 actions, three official splits."""

from __future__ import annotations

from motion_jax.config import UserError
from motion_jax.data.builders import lists, plan

_ROLES = {"0": "unused", "1": "train", "2": "test"}
SIZES = {"train": 3570, "test": 1530}  # of each official split
_LINE = r"(.+?)(?:\.avi)?\s+([012])", "video.avi 0, 1 or 2"


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans HMDB51 from its videos and its official lists.

  The videos lie in a folder for each class; the lists <class>_test_split1.txt, ... have
  lines `video role`, where role is 1 (train), 2 (test) or 0 (unused). Ids are
  class/video.
  """
  folder = lists.folder(splits, "the official lists of HMDB51")
  ending = "_test_split1.txt"
  files = sorted(folder.glob(f"*{ending}"))
  classes = tuple(file.name.removesuffix(ending) for file in files)
  if not classes:
    raise UserError(f"--splits: no files <class>{ending} in {splits}")
  plan.check_count(f"classes in {splits}", len(classes), 51, allow_missing)
  roles: dict[str, list[str]] = {}
  for name in classes:
    for number in range(lists.SPLITS):
      path = folder / f"{name}_test_split{number + 1}.txt"
      for (video, role), place in lists.read(path, *_LINE):
        lists.set_role(roles, f"{name}/{video}", number, _ROLES[role], place)
  for number in range(lists.SPLITS):
    for role, size in SIZES.items():
      found = sum(has[number] == role for has in roles.values())
      plan.check_count(f"{role} of split {number + 1}", found, size, allow_missing)
  return plan.of_roles(source, roles, classes)
