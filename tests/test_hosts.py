"""Several processes train as one, stop as one, and go on as another number of them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_main
from conftest import ROOT
from test_config import CONFIGS, load

from motion_jax import hosts, logs, methods, train
from motion_jax.config import UserError

STEPS, MIDDLE = 60, 20
OVERRIDES = {
  "data.name": "folder",
  "optim.learning_rate": 0.01,
  "train.duration": f"{STEPS} steps",
  "train.log_every": 5,
  "train.checkpoint_every": f"{MIDDLE} steps",
  "train.keep": 9,
  "eval.every": "30 steps",
  "eval.probe": False,
}


def config(pictures):
  result = load(CONFIGS / "mosi.py").get_config("smoke")
  result.update_from_flattened_dict({**OVERRIDES, "data.path": str(pictures)})
  return result


def start(pictures, workdir, *, processes=2, devices=2, seconds=0.0):
  """Starts the processes of one run."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    "STEP_SECONDS": str(seconds),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
  }
  values = {**OVERRIDES, "data.path": pictures}
  command = [
    sys.executable,
    str(ROOT / "tests" / "tiny_main.py"),
    f"--config={ROOT}/configs/mosi.py:smoke",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in values.items()),
    f"--coordinator=127.0.0.1:{port}",
    f"--processes={processes}",
  ]
  return [
    subprocess.Popen(
      [*command, f"--process_index={index}"],
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(processes)
  ]


def finish(processes, timeout=120):
  """Waits; returns (exit codes, what stderr shows)."""
  texts = [process.communicate(timeout=timeout)[1] for process in processes]
  return [process.returncode for process in processes], texts


def wait_for_rows(workdir, count, processes):
  while len(logs.read_rows(workdir / "metrics.jsonl")) < count:
    assert all(process.poll() is None for process in processes)
    time.sleep(0.02)


def assert_same_metrics(workdir, expected):
  rows, others = (
    logs.read_rows(folder / "metrics.jsonl") for folder in (workdir, expected)
  )
  assert len(rows) == len(others) == STEPS // 5 + 2
  for row, other in zip(rows, others, strict=True):
    assert row.keys() == other.keys()
    np.testing.assert_allclose([*row.values()], [*other.values()], rtol=1e-4)


@pytest.fixture
def tiny_method(monkeypatch):
  monkeypatch.setitem(methods.METHODS, "mosi", tiny_main.Pictures)


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory):
  """A run of one process and one device."""
  workdir = tmp_path_factory.mktemp("straight")
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(methods.METHODS, "mosi", tiny_main.Pictures)
    train.train(config(pictures), workdir)
  return workdir


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_and_one_device_goes_on(
  straight, pictures, tmp_path, tiny_method
):
  processes = start(pictures, tmp_path, seconds=0.1)
  wait_for_rows(tmp_path, 1, processes)
  processes[1].send_signal(signal.SIGTERM)
  codes, texts = finish(processes)
  assert codes == [0, 0], texts
  assert "4 x cpu, 2 processes" in texts[0]
  assert "stopped by a signal" in texts[0]
  saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
  assert 5 <= max(saved) < STEPS
  assert len(logs.read_rows(tmp_path / "metrics.jsonl")) < STEPS // 5 + 2
  figure = "figures/pretext.png"
  assert (tmp_path / figure).read_bytes() == (straight / figure).read_bytes()

  train.train(config(pictures), tmp_path)
  assert_same_metrics(tmp_path, straight)


@pytest.mark.slow
def test_two_processes_go_on_from_one_device(straight, pictures, tmp_path):
  shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
  for path in (tmp_path / "checkpoints").iterdir():
    if int(path.name) > MIDDLE:
      shutil.rmtree(path)
  codes, texts = finish(start(pictures, tmp_path))
  assert codes == [0, 0], texts
  assert f"resumed at step {MIDDLE}" in texts[0]
  assert "done" in texts[0] and "done" not in texts[1]
  assert_same_metrics(tmp_path, straight)
  assert not [*tmp_path.glob(".process-*")]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [1, 0])
def test_a_killed_process_ends_the_other_within_a_minute(killed, pictures, tmp_path):
  processes = start(pictures, tmp_path, devices=1, seconds=0.1)
  wait_for_rows(tmp_path, 1, processes)
  processes[killed].kill()
  began = time.monotonic()
  codes, texts = finish(processes, timeout=60)
  assert time.monotonic() - began < 60
  assert codes[1 - killed] not in (0, None)
  other = texts[1 - killed]
  assert "another process has ended" in other or "another task died" in other


@pytest.mark.parametrize(
  ("arguments", "fix"),
  [
    (("host:1", None, 0), "belong together"),
    (("", 2, 0), "belong together"),
    (("host", 2, 0), "must be HOST:PORT"),
    (("host:1", 2, 2), "must be in 0 to 1"),
  ],
)
def test_wrong_arguments_of_processes_name_the_fix(arguments, fix):
  with pytest.raises(UserError, match=fix):
    hosts.join(*arguments)


def test_files_of_processes_are_merged(tmp_path):
  main = tmp_path / "bad_files.txt"
  main.write_text("a\tempty\nb\tempty\n")
  (tmp_path / "bad_files.1.txt").write_text("b\tempty\nc\tempty\n")
  assert hosts.own_file(main) == main
  hosts.merge_own_files(main)
  assert main.read_text() == "a\tempty\nb\tempty\nc\tempty\n"
  assert [path.name for path in tmp_path.iterdir()] == ["bad_files.txt"]
