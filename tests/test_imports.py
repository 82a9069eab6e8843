"""Imports run one way: from the commands down to the configuration, floor by floor."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "motion_jax"
# Rooms on one floor do not know each other. What has no room is a command, or `train`,
# and above all floors.
FLOORS = (
  {"config", "recipe", "progress"},
  {"data", "models"},
  {"ops"},
  {"visualize", "logs", "scale"},
  {"methods"},
  {"training"},
  {"evaluation", "commands"},
  {"costs", "flow_sets"},
)
BELOW = {
  room: set().union(*FLOORS[:floor])
  for floor, rooms in enumerate(FLOORS)
  for room in rooms
}


def imported(path):
  """Names of the rooms of our package, and of libraries, that a file imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
      continue
    for name in names:
      parts = name.split(".")
      if parts[0] == "motion_jax" and len(parts) > 1:
        yield parts[1]
      elif parts[0] in ("jax", "flax", "tensorflow", "torch"):
        yield parts[0]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_go_down_only(path):
  found = {*imported(path)}
  assert "tensorflow" not in found
  room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
  if room == "data":
    assert not found & {"jax", "flax"}
  if room in BELOW:
    assert found - {"jax", "flax", "torch"} <= BELOW[room] | {room}


def test_few_modules_have_no_room():
  """A newcomer guesses the folder from the name."""
  alone = {path.stem for path in PACKAGE.glob("*.py")} - set().union(*FLOORS)
  assert len(alone) <= 10, alone


@pytest.mark.parametrize(
  "path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem
)
def test_configs_import_only_what_they_are_made_of(path):
  assert set(imported(path)) <= {"config", "recipe"}
