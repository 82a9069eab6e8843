"""The notebooks run from top to bottom, and hold the pictures of such a run.

As a program, `python test_colabs.py NOTEBOOK PARAMETERS`, it runs the code cells of a
notebook in order, with a short network and other values of what its cell `parameters`
sets (JSON), and prints as JSON the kinds of the pictures that its cells show.
"""

import ast
import base64
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny
from PIL import Image

from motion_jax.visualize.clips import save_clip_grid, save_gif
from motion_jax.visualize.notebook import show, show_file

ROOT = pathlib.Path(__file__).parents[1]
TINY = dict(DATA="synthetic_actions:tiny")
TRAINING = dict(**TINY, STEPS=1, VIDEOS=0)
NOTEBOOKS = {  # with small parameters
  "pretext_tasks": dict(**TINY, FRAMES=4, SIZE=32),
  "pretrain_and_evaluate": TRAINING,
  "your_own_video": dict(**TINY, STEPS=1, VIDEOS=8, DRAWN=4, SIDE=64),
  "add_a_method": dict(**TRAINING, BATCH=4),
}
LARGEST = 600_000  # bytes of a notebook with its pictures


def cells(name):
  notebook = json.loads((ROOT / "colabs" / f"{name}.ipynb").read_text())
  return notebook["cells"]


def code_cells(name):
  return [cell for cell in cells(name) if cell["cell_type"] == "code"]


def pictures(cell):
  """The kinds of the pictures that are stored with a cell."""
  kinds = [kind for output in cell["outputs"] for kind in output.get("data", {})]
  return [kind for kind in kinds if kind.startswith("image/")]


LONG = ("pretext_tasks", "pretrain_and_evaluate", "your_own_video")


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=pytest.mark.long if n in LONG else ()) for n in NOTEBOOKS],
)
def test_a_notebook_runs_from_top_to_bottom(tmp_path, name):
  folder = tmp_path / "colabs"
  folder.mkdir()
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  command = [sys.executable, __file__, name, json.dumps(NOTEBOOKS[name])]
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  found = subprocess.run(
    command, cwd=folder, env=environment, capture_output=True, text=True
  )
  assert found.returncode == 0, found.stderr[-3000:]
  stored = [pictures(cell) for cell in code_cells(name)]
  assert json.loads(found.stdout.splitlines()[-1]) == stored
  assert not list(folder.iterdir())  # runs lie in the folder runs of the repository


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outside_a_clone_a_notebook_fetches_and_installs_it(
  tmp_path, monkeypatch, name
):
  commands = []

  def run(command, check):
    commands.append([str(word) for word in command])
    if command[0] == "git":
      for folder in ("colabs", "configs"):
        (command[-1] / folder).mkdir(parents=True)

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", [*sys.path])
  monkeypatch.setattr(subprocess, "run", run)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  source = "".join(cells(name)[1]["source"])
  exec(source.replace('REPOSITORY = ""', 'REPOSITORY = "https://x/y"'), {})
  root = str(tmp_path / "motion_jax_repository")
  clone, install = commands
  assert clone == ["git", "clone", "-q", "https://x/y", root]
  assert install[-1].startswith(f"{root}[visualize")
  assert install[-3:-1] == ["-c", f"{root}/constraints.txt"]
  assert sys.path[0] == root and os.getcwd() == f"{root}/colabs"
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: name != "sklearn" or None
  )
  exec(source, {})
  assert commands[-1][-1] == "scikit-learn"
  with pytest.raises(SystemExit, match="set REPOSITORY"):
    monkeypatch.chdir("/")
    exec(source, {})


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_holds_the_output_of_a_whole_run(name):
  code = code_cells(name)
  assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
  outputs = [output for cell in code for output in cell["outputs"]]
  assert not [output for output in outputs if output["output_type"] == "error"]
  assert sum(len(pictures(cell)) for cell in code) >= 2
  assert (ROOT / "colabs" / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens_with_its_installation_and_explains_every_part(name):
  first, install, *rest = cells(name)
  assert "".join(first["source"]).startswith("# ")
  assert install["metadata"]["tags"] == ["install"]
  tagged = [cell for cell in rest if "parameters" in cell["metadata"].get("tags", [])]
  assert len(tagged) == 1
  for cell in rest:
    assert len(cell["source"]) <= 60
  longest = max(
    len(line.rstrip()) for cell in code_cells(name) for line in cell["source"]
  )
  assert longest <= 88


def test_the_method_of_the_notebook_has_forty_lines():
  (cell,) = [
    cell
    for cell in code_cells("add_a_method")
    if "method" in cell["metadata"].get("tags", [])
  ]
  assert len([line for line in cell["source"] if line.strip()]) <= 40


def test_every_notebook_is_tested():
  found = {path.stem for path in (ROOT / "colabs").glob("*.ipynb")}
  assert found == {*NOTEBOOKS}


def test_a_png_is_shown_as_jpeg_of_its_size_and_a_gif_as_it_is(tmp_path):
  clips = np.random.default_rng(0).integers(0, 256, (2, 4, 56, 56, 3), np.uint8)
  png, gif = tmp_path / "clips.png", tmp_path / "clips.gif"
  save_clip_grid(png, clips)
  save_gif(gif, clips)
  shown = show(save_clip_grid, clips)
  with Image.open(png) as stored, Image.open(io.BytesIO(shown.data)) as image:
    assert image.format == "JPEG" and image.size == stored.size
    difference = np.asarray(image, int) - np.asarray(stored.convert("RGB"), int)
    assert abs(difference).mean() < 40  # noise, the worst there is for JPEG
  assert show_file(gif).data == gif.read_bytes()
  assert show(save_gif, clips).data == gif.read_bytes()
  bundle = show_file(gif)._repr_mimebundle_()
  assert base64.b64decode(bundle["image/gif"]) == gif.read_bytes()
  assert bundle["text/plain"] == "Picture(image/gif, 236x118)"


def run_cells(name: str, parameters: dict) -> list[list[str]]:
  """Runs the code cells of a notebook; returns the kinds of pictures each one shows."""
  names, shown = {"__name__": "__main__"}, []
  for number, cell in enumerate(code_cells(name)):
    tree = ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), names)
    value = None
    if last:
      value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    bundle = value._repr_mimebundle_() if hasattr(value, "_repr_mimebundle_") else {}
    shown.append([kind for kind in bundle if kind.startswith("image/")])
    if "parameters" in cell["metadata"].get("tags", []):
      unknown = parameters.keys() - names.keys()
      assert not unknown, f"no parameters of {name}: {unknown}"
      names.update(parameters)
  return shown


if __name__ == "__main__":
  tiny.shorten_network()
  with contextlib.redirect_stdout(sys.stderr):
    kinds = run_cells(sys.argv[1], json.loads(sys.argv[2]))
  print(json.dumps(kinds))
