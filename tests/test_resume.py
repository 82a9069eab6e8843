"""Kill a run at any moment, repeat the command: the same numbers, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import children
import pytest
from conftest import ROOT

STEPS = 14


def command(pictures, workdir, *overrides):
  return [
    sys.executable,
    str(ROOT / "tests" / "tiny_mosi.py"),
    f"--config={ROOT}/configs/mosi.py:smoke",
    f"--workdir={workdir}",
    "--config.data.name=folder",
    f"--config.data.path={pictures}",
    f"--config.train.duration={STEPS} steps",
    "--config.train.log_every=2",
    "--config.train.checkpoint_every=3 steps",
    "--config.eval.every=5 steps",
    "--config.method.curriculum_steps=6",
    *overrides,
  ]


def run(*args):
  return children.run(command(*args))


def rows(workdir):
  path = workdir / "metrics.jsonl"
  return len(path.read_text().splitlines()) if path.exists() else 0


def interrupt(pictures, workdir, after_rows, signal_number):
  """Sends a run a signal once that many rows are written; returns (code, stderr)."""
  environment = {**os.environ, "STEP_SECONDS": "0.1"}
  pipes = dict(stderr=subprocess.PIPE, env=environment)
  with children.started(command(pictures, workdir), **pipes) as [process]:
    while rows(workdir) < after_rows and process.poll() is None:
      time.sleep(0.002)
    time.sleep(random.random() * 0.2)
    process.send_signal(signal_number)
    errors = process.communicate(timeout=120)[1]
  return process.returncode, errors


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("straight")
  result = run(pictures, workdir)
  assert result.returncode == 0, result.stderr
  return workdir


@pytest.mark.slow
def test_three_kills_leave_no_trace(straight, pictures, tmp_path):
  for after_rows in (1, 4, 7):
    code, _ = interrupt(pictures, tmp_path, after_rows, signal.SIGKILL)
    assert code == -signal.SIGKILL
  result = run(pictures, tmp_path)
  assert result.returncode == 0, result.stderr
  expected = (straight / "metrics.jsonl").read_bytes()
  assert (tmp_path / "metrics.jsonl").read_bytes() == expected
  assert rows(straight) == STEPS // 2 + 3


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_zero(straight, pictures, tmp_path):
  code, _ = interrupt(pictures, tmp_path, 3, signal.SIGTERM)
  assert code == 0
  saved = [int(name) for name in os.listdir(tmp_path / "checkpoints")]
  assert 5 <= max(saved) < STEPS
  result = run(pictures, tmp_path)
  assert f"resumed at step {max(saved)}" in result.stderr
  expected = (straight / "metrics.jsonl").read_bytes()
  assert (tmp_path / "metrics.jsonl").read_bytes() == expected


@pytest.mark.slow
def test_ctrl_c_saves_like_sigterm(pictures, tmp_path):
  code, errors = interrupt(pictures, tmp_path, 1, signal.SIGINT)
  assert code == 0
  assert os.listdir(tmp_path / "checkpoints")
  assert "Traceback" not in errors


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_after_the_last_good_checkpoint(
  pictures, tmp_path
):
  result = run(pictures, tmp_path, "--config.optim.learning_rate=3e38")
  assert result.returncode == 2
  assert "the loss of step" in result.stderr
  assert "Traceback" not in result.stderr
  for name in os.listdir(tmp_path / "checkpoints"):
    assert name.isdigit()  # nothing half written


@pytest.mark.slow
def test_a_changed_config_is_refused_with_the_keys(straight, pictures):
  before = (straight / "metrics.jsonl").read_bytes()
  result = run(pictures, straight, "--config.optim.learning_rate=0.5")
  assert result.returncode == 2
  assert "optim.learning_rate: 0.002 -> 0.5" in result.stderr
  assert "Traceback" not in result.stderr
  assert (straight / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_finished_run_only_reports_again(straight, pictures):
  assert (straight / "figures" / "predictions.png").exists()
  before = (straight / "metrics.jsonl").read_bytes()
  summary = json.loads((straight / "summary.json").read_text())
  result = run(pictures, straight)
  assert result.returncode == 0, result.stderr
  assert f"resumed at step {STEPS}" in result.stderr
  assert (straight / "metrics.jsonl").read_bytes() == before
  assert json.loads((straight / "summary.json").read_text()) == summary


@pytest.mark.slow
def test_a_run_that_is_made_longer_is_unfinished_until_its_new_end(
  straight, pictures, tmp_path
):
  shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
  more = (f"--config.train.duration={STEPS + 6} steps", "--config.optim.warmup=1 steps")
  broken = "--config.optim.learning_rate=3e38"
  result = run(
    pictures, tmp_path, *more, broken, "--config.train.allow_config_change=True"
  )
  assert result.returncode == 2, result.stderr
  assert not (tmp_path / "summary.json").exists()
