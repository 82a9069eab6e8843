"""Wrong input ends with one message that names the fix, and exit code 2."""

import contextlib
import io
import os
import pathlib
import sys

import pytest
from absl import flags
from commands import parsed
from conftest import ROOT

from motion_jax import main, methods
from motion_jax.commands import command
from motion_jax.data.sources import StorageFault
from motion_jax.data.storage import StorageError


@pytest.fixture(autouse=True)
def command_line(monkeypatch):
  """Restores `sys.argv`, which the config flag reads itself."""
  monkeypatch.setattr(sys, "argv", sys.argv)


def run(capsys, *args, config="mosi.py:smoke"):
  """Runs the program in this process; returns (exit code, what stderr shows)."""
  for name in [name for name in flags.FLAGS if name.startswith("config.")]:
    delattr(flags.FLAGS, name)  # overrides are defined anew by every parse
  flags.FLAGS.unparse_flags()
  sys.argv = ["main", f"--config={ROOT / 'configs' / config}", *args]
  code = command.run(main.main, sys.argv)
  return code, capsys.readouterr().err


FOLDER = ("--config.data.name=folder",)
WRONG = {
  "missing folder": (["--config.data.path=/nowhere/videos"], "/nowhere/videos"),
  "no folder given": ([], "--config.data.path"),
  "unknown network": (["--config.model.name=resnet50"], "r2d3d_18"),
  "unknown method": (["--config.method.name=moco"], "mosi"),
  "unknown key": (["--config.optim.learning_rte=1"], "learning_rate"),
  "unknown mode": (["--config.mode=test"], "evaluate"),
  "wrong type": (["--config.train.batch_size=many"], "batch_size"),
  "unknown option": (["--work_dir=x"], "workdir"),
  "no room for the crop": (["--config.data.short_side=32"], "no room to move"),
  "wrong duration": (["--config.train.duration=ten"], "100 epochs"),
  "batch and accumulation": (["--config.train.accumulate_steps=3"], "6 and 9"),
  "batch and groups": (["--config.model.bn_groups=3"], "bn_groups=3 must divide"),
  "unknown optimiser": (["--config.optim.name=adan"], "adamw"),
  "unknown lowering": (["--config.model.lowering=fast"], "folded"),
  "distance jitter": (["--config.method.distance_jitter=(2.0,3.0)"], "jitter"),
  "jitter": (["--config.method.brightness=3.0"], "brightness"),
  "one frame": (["--config.method.frames=1"], "frames"),
  "two means": (["--config.method.mean=(0.5,0.5)"], "mean=(0.5, 0.5) must be 3"),
  "mask ratio": (["--config.method.mask_ratio=(0.9,1.7)"], "mask_ratio"),
  "no log": (["--config.train.log_every=0"], "log_every=0 must be at least 1"),
  "no parts": (["--config.train.accumulate_steps=0"], "accumulate_steps=0 must"),
  "no channels": (["--config.model.width=0"], "model.width=0 must"),
  "no threads": (["--config.data.threads=-2"], "data.threads=-2 must"),
  "no steps": (["--config.train.duration=0 steps"], "at least one step"),
  "three sides": (["--config.data.canvas=(96,96,96)"], "(height, width)"),
  "one list": (["--config.data.train_list=a.txt"], "data.heldout_list"),
  "unknown dtype": (["--config.model.dtype=half"], "bfloat16"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_names_the_fix(name, capsys, pictures, tmp_path):
  args, fix = WRONG[name]
  path = [] if name == "no folder given" else [f"--config.data.path={pictures}"]
  code, text = run(capsys, f"--workdir={tmp_path / 'run'}", *FOLDER, *path, *args)
  assert code == 2
  assert fix in text
  assert "Traceback" not in text


@pytest.mark.parametrize(
  ("word", "told"),
  [
    (
      "optim.lr=0.01",
      "--config.optim.lr: unknown key of config.optim 'lr'; known: b1, b2, clip_norm, "
      "drops, learning_rate, momentum, name, warmup, warmup_start, weight_decay. Did "
      "you mean 'learning_rate'?",
    ),
    ("optm.lr=0.01", "key of config 'optm'; known: data, eval, method, mode, model, "),
    ("train.log_evry=2", "Did you mean 'log_every'?"),
    ("batch_size=8", "There is config.eval.batch_size and config.train.batch_size."),
    ("seed.x=1", "--config.seed.x: config.seed is a value, 0, without keys"),
    (
      "train.batch_size=abc",
      "--config.train.batch_size=abc must be a whole number, like 8",
    ),
    ("method.size=5.5", "--config.method.size=5.5 must be a whole number, like 32"),
    ("method.flip=maybe", "--config.method.flip=maybe must be True or False, like"),
    ("optim.b1=x", "--config.optim.b1=x must be a number, like 0.9"),
    ("train=5", "--config.train=5 is a section; set its keys: accumulate_steps, "),
  ],
)
def test_a_wrong_override_says_what_there_is(word, told, capsys):
  code, text = run(capsys, f"--config.{word}")
  assert code == 2
  assert text.startswith("error: ") and told in text
  assert len(text.splitlines()) == 1


CONFIG = """
def get_config(arg=None):
  values = {{}}
  {line}
"""


@pytest.mark.parametrize(
  ("line", "error"),
  [
    ("values.nothing", "AttributeError: 'dict' object has no attribute 'nothing'"),
    ("values['nothing']", "KeyError: 'nothing'"),
    ("int('x')", "ValueError: invalid literal"),
    ("import no_such_module", "ModuleNotFoundError: "),
    ("open('/nowhere/x')", "FileNotFoundError: "),
    ("1 +", "SyntaxError: "),
  ],
)
def test_a_fault_in_a_config_file_is_shown_with_its_place(
  line, error, capsys, tmp_path
):
  path = tmp_path / "own.py"
  path.write_text(CONFIG.format(line=line))
  code, text = run(capsys, config=path)
  assert code == 2
  assert text.startswith(f"error: --config={path} cannot be loaded:\n")
  assert f'File "{path}", line 4' in text and line in text
  assert text.splitlines()[-1].startswith(error)
  assert "Traceback" not in text


def test_the_place_of_a_fault_is_told_of_a_relative_path_too(capsys, tmp_path):
  (tmp_path / "own.py").write_text(CONFIG.format(line="values.nothing"))
  code, *_ = parsed([f"--config={os.path.relpath(tmp_path / 'own.py', ROOT)}"])
  text = capsys.readouterr().err
  assert code == 2 and 'own.py", line 4' in text and "values.nothing" in text, text


@pytest.mark.parametrize("kind", [TypeError, ValueError, KeyError, OSError])
def test_a_fault_of_the_program_keeps_its_traceback(kind, capsys, pictures, tmp_path):
  def faulty(config):
    raise kind("a fault")

  with pytest.MonkeyPatch.context() as patch, pytest.raises(kind, match="a fault"):
    patch.setitem(methods.METHODS, "mosi", faulty)
    path = f"--config.data.path={pictures}"
    run(capsys, *FOLDER, path, f"--workdir={tmp_path / 'run'}")


@pytest.mark.parametrize(
  "error", [StorageError("/a cannot be read"), StorageFault("/a", "Stale file handle")]
)
def test_failing_storage_is_one_message_and_asks_to_be_tried_again(
  error, capsys, pictures, tmp_path, monkeypatch
):
  def failing(config):
    raise error

  monkeypatch.setitem(methods.METHODS, "mosi", failing)
  path = f"--config.data.path={pictures}"
  code, text = run(capsys, *FOLDER, path, f"--workdir={tmp_path / 'run'}")
  assert code == 75
  assert "error: /a cannot be read" in text and "Traceback" not in text


@pytest.mark.parametrize(
  ("config", "fix"),
  [
    ("mosi.py:hmbd51", "hmdb51"),
    ("mosi.py:hmdb51,netwrk=r3d_18", "network"),
    ("mosy.py", "mosy.py does not exist"),
    ("../README.md", "is no Python file"),
  ],
)
def test_a_wrong_config_argument_names_the_fix(config, fix, capsys):
  code, text = run(capsys, config=config)
  assert code == 2
  assert fix in text
  assert "Traceback" not in text


@pytest.mark.parametrize(
  ("path", "told"),
  [
    ("configs/mosi.py", f"which is not the repository: cd {ROOT}\n"),
    ("configs/mosi.py:folder", f"which is not the repository: cd {ROOT}\n"),
    ("configs/mosy.py", "the recipes are in the repository's folder configs: cd to it"),
  ],
)
def test_in_another_folder_the_repository_is_named(
  path, told, capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  sys.argv = ["main", f"--config={path}"]
  code = command.run(main.main, sys.argv)
  text = capsys.readouterr().err
  file = path.partition(":")[0]
  assert code == 2 and told in text
  assert text.startswith(f"error: --config={file} does not exist in {tmp_path}")
  assert len(text.splitlines()) == 1


def test_an_empty_folder_says_what_it_looked_for(capsys, tmp_path):
  empty = tmp_path / "empty"
  empty.mkdir()
  code, text = run(
    capsys, *FOLDER, f"--config.data.path={empty}", f"--workdir={tmp_path / 'run'}"
  )
  assert code == 2
  assert str(empty) in text
  assert "mp4" in text


def test_a_data_set_that_is_not_prepared_prints_the_command(capsys, tmp_path):
  code, text = run(
    capsys, f"--config.data.data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}",
    config="mosi.py:hmdb51",
  )  # fmt: skip
  assert code == 2
  assert "python -m motion_jax.prepare hmdb51" in text


def test_a_workdir_that_cannot_be_written_is_refused(capsys, tmp_path):
  file = tmp_path / "file"
  file.touch()
  code, text = run(capsys, f"--workdir={file / 'run'}")
  assert code == 2
  assert "choose another --workdir" in text


@pytest.mark.parametrize(
  ("config", "args"),
  [
    ("mosi.py:smoke", ["--config.mode=evaluate", "--workdir=~/run"]),
    ("evaluate.py", ["--config.init_from=~/run"]),
  ],
)
def test_a_tilde_is_the_home_folder(config, args, capsys, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.chdir(tmp_path)
  code, text = run(capsys, *args, config=config)
  assert code == 2
  assert f"no checkpoint in {tmp_path}/home/run" in text


def test_evaluating_before_training_says_so(capsys, tmp_path):
  code, text = run(capsys, "--config.mode=evaluate", f"--workdir={tmp_path}")
  assert code == 2
  assert "train first" in text


def test_evaluating_a_mistyped_workdir_does_not_make_it(capsys, tmp_path):
  run(capsys, "--config.mode=evaluate", f"--workdir={tmp_path / 'typo'}")
  assert not (tmp_path / "typo").exists()


def test_a_recipe_is_printed_one_setting_a_line(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with contextlib.redirect_stdout(io.StringIO()) as text:
    words = ("--print_config", "--config.method.mask_ratio=(0.1,0.2)")
    assert run(capsys, *words, config="mosi.py:ucf101") == (0, "")
  lines = text.getvalue().splitlines()
  assert {"method.mask_ratio: (0.1, 0.2)", "data.name: 'ucf101'", "seed: 0"} <= {*lines}
  assert len(lines) == len({line.partition(":")[0] for line in lines}) > 70
  assert not [*tmp_path.iterdir()]


def test_a_starting_point_that_is_not_there_leaves_no_folder(capsys, tmp_path):
  words = ("--config.init_from=/nowhere/run", f"--workdir={tmp_path / 'run'}")
  code, text = run(capsys, *words, config="finetune.py:smoke")
  assert code == 2 and "no checkpoint in /nowhere/run" in text
  assert not (tmp_path / "run").exists()


def test_help_ends_well(capsys):
  with pytest.raises(SystemExit) as end:
    run(capsys, "--help")
  assert end.value.code == 0
  told = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(main)}
  shared = {"config", "deterministic", "coordinator", "processes", "process_index"}
  assert told == shared | {"workdir", "print_config"}


def test_a_recipe_that_reads_motion_says_so_before_its_data_are_prepared(
  capsys, tmp_path
):
  config = "--config.data.name=kinetics400", f"--config.data.data_dir={tmp_path}"
  for flow in ("raft", ""):
    words = (*config, f"--config.data.flow={flow}", f"--workdir={tmp_path / 'run'}")
    code, text = run(capsys, *words, config="modist.py:smoke")
    assert code == 2 and "prepare kinetics400 --source" in text
    assert ("prepare flow" in text) == bool(flow)


def test_nothing_is_left_behind_by_a_refused_run(capsys, tmp_path):
  workdir = tmp_path / "run"
  run(capsys, *FOLDER, "--config.data.path=/nowhere", f"--workdir={workdir}")
  assert not [path for path in pathlib.Path(workdir).rglob("*") if path.is_file()]
