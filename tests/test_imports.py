"""Imports run one way: main | evaluation, costs | methods, data | models | config."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "motion_jax"
LOW = {"models", "ops", "visualize", "state", "sharding"}
MIDDLE = {"methods", "data", "checkpoint", "logs", "trained_encoder"}
ALLOWED = {
  **{name: {"config"} for name in LOW},
  "methods": LOW | {"config", "data"},
  "data": {"config"},
  # hosts agree on the newest checkpoint
  "checkpoint": {"config", "hosts", "damage", "state"},
  "trained_encoder": {"checkpoint", "methods"},
  "damage": set(),
  "logs": {"config"},
  "measures": {"config", "models", "ops"},  # a floor of its own in `evaluation`
  # It measures methods that it is given; hosts agree on what all can read.
  "evaluation": LOW | MIDDLE - {"methods", "checkpoint"} | {"config", "hosts"},
  "training": LOW | MIDDLE - {"methods"} | {"config", "hosts", "interrupts"},
  "costs": LOW | MIDDLE | {"config", "training"},  # optimisers are a part of the step
  "flow_sets": LOW | MIDDLE | {"config", "command"},
  "config": set(),
  "recipe": set(),
}
# Inside one layer: a lower file may be used by its neighbours. Operations read the
# code of stored motion, which is a format of data.
NEIGHBOURS = {
  "state": {"sharding"},
  "measures": {"evaluation"},
  "ops": {"data"},
  "visualize": {"ops"},
}


def imported(path):
  """Names of the parts of our package that a file imports."""
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
  parts = path.relative_to(PACKAGE).parts
  part = "measures" if "measures" in parts else parts[0].removesuffix(".py")
  ours = {name for name in imported(path) if name not in ("jax", "flax")}
  assert "tensorflow" not in ours
  if part == "data":
    assert not {"jax", "flax"} & set(imported(path))
  if part in ALLOWED:
    allowed = ALLOWED[part] | NEIGHBOURS.get(part, set()) | {part}
    assert ours - {"torch"} <= allowed


@pytest.mark.parametrize(
  "path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem
)
def test_configs_import_only_what_they_are_made_of(path):
  assert set(imported(path)) <= {"config", "recipe"}
