"""README and its pages: every command is one that the programs take, links lead on."""

import os
import re
import shlex
import subprocess

import pytest
from commands import parsed
from conftest import ROOT
from PIL import Image
from test_config import load

from motion_jax.data import datasets
from motion_jax.flow_sets import prepare_flow

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text().replace("\\\n", "") for page in PAGES}
# Whose commands tests/test_reproduce.py parses are left out.
TEXT = "\n".join(text for page, text in TEXTS.items() if "reproduce" not in page.stem)
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
INLINE = re.findall(r"`(python [^`]+)`", TEXT)
LINES = [line for block in BLOCKS for line in block.splitlines()] + INLINE
# In tables `--config=...` stands for a whole command.
FRAGMENTS = re.findall(r"`(--config=configs/[^`]+)`", TEXT)
COMMANDS = list(
  dict.fromkeys(
    re.sub(r"^.*\bpython3? ", "", line)  # what stands behind the last 'python'
    for line in LINES
    if "python" in line and "<name>" not in line and "...`" not in line
  )
)
MODULES = ("extract", "benchmark", "convert", "prepare")  # their flags are absl's


def starting_with(*words):
  found = [shlex.split(line) for line in COMMANDS]
  count = len(words)
  return [line[count:] for line in found if line[:count] == list(words)]


def test_every_run_has_a_known_config_and_keys(capsys):
  fragments = [shlex.split(text) for text in FRAGMENTS if "--communication" not in text]
  runs = starting_with("-m", "motion_jax.main") + fragments
  assert len(runs) > 30
  for words in runs:
    code, *_ = parsed([word.replace("=...", "=x") for word in words])
    assert code == 0, f"{words}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("name", MODULES)
def test_every_other_command_has_known_flags(name):
  text = (ROOT / "motion_jax" / f"{name}.py").read_text()
  known = {*re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', text)}
  commands = starting_with("-m", f"motion_jax.{name}")
  assert commands
  for words in commands:
    if words[:1] == ["flow"]:
      continue  # has its own test
    given = {
      word.removeprefix("--").partition("=")[0] for word in words if word[:1] == "-"
    }
    assert {word for word in given if not word.startswith("config")} <= known | {"help"}
    if name == "prepare" and words[0] != "--help":
      assert words[0] in datasets.PREPARE


def test_exports_have_known_flags():
  text = (ROOT / "motion_jax" / "export.py").read_text()
  commands = starting_with("-m", "motion_jax.export")
  given = {word.partition("=")[0] for words in commands for word in words}
  assert given and given <= {*re.findall(r'add_argument\("(--\w+)"', text)}


def test_flow_is_prepared_by_options_that_there_are():
  commands = starting_with("-m", "motion_jax.prepare", "flow")
  whole = [words for words in commands if words]
  assert whole
  for words in whole:
    prepare_flow.parse(words)


def test_benchmarks_have_known_flags():
  named = re.findall(r"`(?:python )?(tests/benchmarks/[^`]+)`", TEXT)
  assert len(named) > 4
  for line in named:
    path, *words = line.split()
    flags = {word.strip("[]").partition("=")[0] for word in words if "--" in word}
    known = r'add_argument\("--(\w+)|flags\.DEFINE_\w+\("(\w+)'
    names = {a or b for a, b in re.findall(known, (ROOT / path).read_text())}
    assert {flag.removeprefix("--") for flag in flags} <= names, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_to_a_file(page):
  named = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
  assert named
  for path in named:
    assert (page.parent / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_rows_of_a_table_have_equally_many_cells(page):
  for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text(), re.MULTILINE):
    rows = [re.sub(r"`[^`]*`", "", row).count("|") for row in table.splitlines()]
    assert len({*rows}) == 1, table


def test_pages_are_short_and_lead_back():
  for page, text in TEXTS.items():
    most = 180 if page == PAGES[0] else 250
    assert len(page.read_text().splitlines()) <= most, page
    if page == PAGES[0]:
      continue
    assert "(../README.md)" in text
    above = page.with_name("reproduce.md") if "_" in page.stem else PAGES[0]
    assert f"({page.relative_to(above.parent)})" in TEXTS[above], page


def test_every_file_that_is_named_exists():
  named = re.findall(r"`((?:launch|configs|colabs|docs|tests)/[\w./-]+)", TEXT)
  named += [words[0] for line in COMMANDS if (words := line.split())[0][-3:] == ".py"]
  assert len(named) > 10
  for path in named:
    assert (ROOT / path.split(":")[0]).exists(), path


def test_the_first_pictures_are_their_scripts_and_quick_to_load():
  script = load(ROOT / "docs" / "make_pretexts.py")
  assert "(docs/pretexts.gif)" in TEXTS[PAGES[0]]
  for name, size, most in (
    ("pretexts.gif", script.MOVING, 1_500_000),
    ("pretexts.jpg", script.SIZE, 250_000),
  ):
    path = ROOT / "docs" / name
    with Image.open(path) as picture:
      assert picture.size == size
      assert getattr(picture, "n_frames", 1) in (1, script.FRAMES)
    assert path.stat().st_size < most


def test_every_extra_that_is_named_is_declared():
  named = {*re.findall(r"\.\[(\w+)\]", TEXT)}
  text = (ROOT / "setup.py").read_text()
  assert named and all(f'"{name}": [' in text for name in named)


def test_a_table_names_every_data_set_that_can_be_prepared():
  [table] = re.findall(
    r"^\| name \|.*\n(?:\|.*\n)+", TEXTS[ROOT / "docs" / "data.md"], re.M
  )
  firsts = [row.split("|")[1] for row in table.splitlines()[2:]]
  named = {name for first in firsts for name in re.findall(r"`(\w+)`", first)}
  assert named == {*datasets.PREPARE}


def test_a_pod_that_is_there_gets_all_but_the_request_and_its_end():
  text = TEXTS[ROOT / "docs" / "devices.md"]
  [line] = [line for line in text.splitlines() if line.endswith("> my-pod.sh")]
  quick = {**os.environ, "PYTHON": "true"}
  command = ["bash", "-c", line.replace("> my-pod.sh", "")]
  made = subprocess.check_output(command, cwd=ROOT, text=True, env=quick).splitlines()
  assert all(line.startswith("gcloud compute tpus tpu-vm s") for line in made)
  assert sum("motion_jax.main" in line for line in made) == 1


@pytest.mark.parametrize("script", ["slurm.sbatch", "tpu_pod.sh", "gke.sh"])
def test_shell_scripts_print_what_they_would_run(script):
  command = ["bash", f"launch/{script}", "--dry_run", "configs/mosi.py:kinetics400"]
  quick = {**os.environ, "PYTHON": "true"}  # which would check the config
  found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quick)
  assert found.returncode == 0, found.stderr
  assert "motion_jax.main" in found.stdout


@pytest.mark.parametrize("script", ["slurm.sbatch", "tpu_pod.sh", "gke.sh"])
def test_shell_scripts_explain_themselves(script):
  def run(*words):
    command = ["bash", f"launch/{script}", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

  found = run("--help")
  assert found.returncode == 0 and found.stdout.startswith("One run on ")
  assert "Environment: " in found.stdout and "set -" not in found.stdout
  alone = run()
  assert alone.returncode and "--help tells more" in alone.stderr
