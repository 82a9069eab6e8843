"""UCF101 (Soomro et al., 2012): 13,320 videos, 101 actions, three official splits."""

from __future__ import annotations

from motion_jax.config import UserError
from motion_jax.data.builders import lists, plan

_LINE = r"(([^/\s]+)/\S+?)(?:\.avi)?(?:\s+\d+)?", "class/video.avi [number]"
# (train, test) videos of the official splits 1 to 3.
SIZES = ((9537, 3783), (9586, 3734), (9624, 3696))


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans UCF101 from its videos and its official lists.

  Args:
    source: folder or zip archive of the videos, in any arrangement.
    splits: folder with classInd.txt, trainlist01.txt, testlist01.txt, ...
    allow_missing: accept videos that are missing and lists of other sizes.

  Returns:
    The plan; ids are Class/v_Class_gNN_cNN.

  Raises:
    UserError: if something is missing.
  """
  folder = lists.folder(splits, "the official lists of UCF101")
  lines = lists.read(folder / "classInd.txt", r"\d+\s+(\S+)", "number class")
  classes = tuple(line.fields[0] for line in lines)
  index = {name: number for number, name in enumerate(classes)}
  roles: dict[str, list[str]] = {}
  for number, sizes in enumerate(SIZES):
    for role, size in zip(("train", "test"), sizes, strict=True):
      file = f"{role}list{number + 1:02d}.txt"
      lines = [*lists.read(folder / file, *_LINE)]
      plan.check_count(file, len(lines), size, allow_missing)
      for (name, class_name), place in lines:
        if class_name not in index:
          raise UserError(f"{place}: the class {class_name!r} is not in classInd.txt")
        lists.set_role(roles, name, number, role, place)
  labels = {name: index[name.partition("/")[0]] for name in roles}
  lookup = plan.Lookup(plan.find_videos(source))
  places = {name: lookup(name, name.partition("/")[2]) for name in roles}
  return plan.role_items(roles, labels, places, classes)
