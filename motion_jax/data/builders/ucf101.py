"""UCF101 (Soomro et al., 2012): 13,320 videos, 101 actions, three official splits."""

from __future__ import annotations

from motion_jax.config import UserError
from motion_jax.data.builders import lists, plan

_LINE = r"(([^/\s]+)/\S+?)(?:\.avi)?(?:\s+\d+)?", "class/video.avi [number]"
# (train, test) videos of the official splits 1 to 3.
SIZES = ((9537, 3783), (9586, 3734), (9624, 3696))


def make_plan(source: str, splits: str, allow_missing: bool) -> plan.Plan:
  """Plans UCF101 from its videos and its official lists.

  The videos lie in any arrangement; the lists are classInd.txt, trainlist01.txt,
  testlist01.txt, ... Ids are Class/v_Class_gNN_cNN.
  """
  folder = lists.folder(splits, "the official lists of UCF101")
  lines = lists.read(folder / "classInd.txt", r"\d+\s+(\S+)", "number class")
  classes = tuple(line.fields[0] for line in lines)
  roles: dict[str, list[str]] = {}
  for number, sizes in enumerate(SIZES):
    for role, size in zip(("train", "test"), sizes, strict=True):
      file = f"{role}list{number + 1:02d}.txt"
      lines = [*lists.read(folder / file, *_LINE)]
      plan.check_count(file, len(lines), size, allow_missing)
      for (name, class_name), place in lines:
        if class_name not in classes:
          raise UserError(f"{place}: the class {class_name!r} is not in classInd.txt")
        lists.set_role(roles, name, number, role, place)
  return plan.of_roles(source, roles, classes)
