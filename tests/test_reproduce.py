"""Every command of docs/reproduce*.md is one that the command line takes."""

import re
import shlex

import pytest
from absl import flags
from commands import parsed
from conftest import ROOT
from test_config import load

from motion_jax import main, prepare
from motion_jax.data import datasets
from motion_jax.flow_sets import prepare_flow
from motion_jax.training.plan import make_plan

PAGES = sorted((ROOT / "docs").glob("reproduce*.md"))
TEXT = "\n".join(page.read_text() for page in PAGES)
COMMANDS = sorted({*re.findall(r"(?:^|`)python -m ([^`\n]+)", TEXT, re.MULTILINE)})
WORDS = {line: shlex.split(line) for line in COMMANDS}


def of_module(name):
  """Arguments of the commands of a module, by their text."""
  return {line: words[1:] for line, words in WORDS.items() if words[0] == name}


def test_every_training_and_evaluation_has_known_words_and_keys(capsys):
  runs = {}
  for line, words in of_module("motion_jax.main").items():
    code, config, workdir = parsed(words)
    assert code == 0, f"{line}\n{capsys.readouterr().err}"
    assert config.mode in main.MODES
    assert workdir not in runs, f"two commands for {workdir}"
    runs[workdir] = config
    if "train" in config:
      make_plan(config, examples=1000)
  assert len(runs) > 150
  for workdir, config in runs.items():
    start = config.get("init_from", "")
    if start in ("", "scratch"):
      continue
    before = runs[start]  # has a command, too
    assert "train" in before, f"{workdir} starts from what is no training: {start}"
    if "model" in config:
      for key in ("name", "width"):
        assert before.model[key] == config.model[key], f"{workdir}, model.{key}"


def test_the_commands_for_figures_draw_runs_that_the_command_before_makes():
  text = load(ROOT / "configs" / "visualize.py").__doc__
  found = re.findall(
    r"--config=configs/\S+\.py:.*(?:\n       .*)*|--config=.*init.*", text
  )
  lines = [shlex.split(line) for line in found][-6:]
  assert len(lines) == 6
  for before, drawn in zip(lines[::2], lines[1::2], strict=True):
    code, config, workdir = parsed(before)
    assert code == 0, before
    code, drawing, _ = parsed(drawn)
    assert (code, drawing.mode) == (0, "visualize"), drawn
    assert drawing.init_from == (workdir or f"runs/{config.name}")
    if "unmasked" in workdir:
      assert config.method.mask_ratio == (1.0, 1.0)


@pytest.mark.parametrize(
  ("word", "override", "message"),
  [
    ("ucf102", "method.axes=x", "ucf101"),
    ("ucf101", "method.axis=x", "axes"),
    ("ucf101", "method.speeds=many", "speeds"),
  ],
)
def test_an_unknown_word_key_or_value_would_be_found(capsys, word, override, message):
  arguments = [f"--config=configs/mosi.py:{word}", f"--config.{override}"]
  assert parsed(arguments)[0] == 2
  assert message in capsys.readouterr().err


def test_every_preparation_is_of_a_known_data_set():
  for name, *options in of_module("motion_jax.prepare").values():
    if name == "flow":
      prepare_flow.parse(options)
      continue
    assert name in datasets.PREPARE
    known = flags.FLAGS.flags_by_module_dict()[prepare.__name__]
    given = {option.removeprefix("--").partition("=")[0] for option in options}
    assert given <= {flag.name for flag in known}


def test_every_row_has_the_papers_number_a_result_and_a_command_or_a_reason():
  rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
  tables = 0
  for row in rows:
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    if cells[-2:] == ["here", "command"]:
      tables += 1
      continue
    *_, paper, here, how = cells
    assert paper == "-" or re.search(r"\d", paper), row
    assert re.fullmatch(r"(not run|[\d.]+)(, (not run|[\d.]+))?", here), row
    assert re.match(r"`python -m |no command: \w|pretraining above$", how), row
  assert tables == 14
