"""Every method trains alike however its work is split: on devices, in processes."""

import json
import socket
import subprocess
import sys

import children
import numpy as np
import pytest
from conftest import ROOT

PROCESSES = 2
OTHERS = ("mosi", "mas", "classify", "joint", "detect")
METHODS = (
  "modist",  # has all that there is to split: examples, two networks, queues
  *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS),
)


def command(name, devices, *more):
  return [sys.executable, ROOT / "tests" / "same_steps.py", name, devices, *more]


def on_devices(name, counts):
  """{devices: numbers} of one process."""
  counts = [str(count) for count in counts]
  result = children.run(
    command(name, ",".join(counts)), env=children.environment(counts[-1]), timeout=900
  )
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)[name]
  return [found[count] for count in counts]


def free_address():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{free.getsockname()[1]}"


def in_processes(name):
  """Numbers of two processes with two devices each."""
  address, devices = free_address(), str(2 * PROCESSES)
  commands = [
    command(name, devices, address, f"--process_index={index}")
    for index in range(PROCESSES)
  ]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  with children.started(*commands, env=children.environment(2), **pipes) as processes:
    texts = [process.communicate(timeout=900) for process in processes]
    codes = [process.returncode for process in processes]
  assert codes == [0] * PROCESSES, texts
  lines = [output.splitlines()[-1] for output, _ in texts]  # the first are Gloo's
  one, other = (json.loads(line)[name][devices] for line in lines)
  assert one == other
  return one


def assert_alike(numbers, expected):
  assert len(numbers) > 6 and np.isfinite(expected).all()
  np.testing.assert_allclose(numbers, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_one_and_eight_devices_train_alike(name):
  one, eight = on_devices(name, (1, 8))
  assert_alike(eight, one)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_train_like_one_device(name):
  [one] = on_devices(name, (1,))
  assert_alike(in_processes(name), one)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("config", ["mosi.py:smoke", "finetune.py:smoke,scratch"])
def test_two_processes_evaluate_like_one(config, tmp_path):
  """Retrieval, k-NN and the linear probe; accuracy over the clips of whole videos."""

  def start(processes, *flags):
    workdir = tmp_path / str(processes)
    words = [sys.executable, "-m", "motion_jax.main", f"--workdir={workdir}"]
    return workdir, [*words, f"--config={ROOT}/configs/{config}", *flags]

  alone, run = start(1)
  result = children.run(run, env=children.environment(4), timeout=900)
  assert result.returncode == 0, result.stderr
  flags = f"--coordinator={free_address()}", f"--processes={PROCESSES}"
  together, run = start(PROCESSES, *flags)
  runs = [[*run, f"--process_index={index}"] for index in range(PROCESSES)]
  pipes = dict(env=children.environment(2), stderr=subprocess.PIPE)
  with children.started(*runs, **pipes) as processes:
    texts = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, texts
  values, expected = (
    json.loads((folder / "summary.json").read_text()) for folder in (together, alone)
  )
  scores = [name for name in expected if name.startswith("eval/")]
  assert {name for name in values if name.startswith("eval/")} == set(scores)
  assert len(scores) > 3
  for name in scores:
    assert values[name] == pytest.approx(expected[name], rel=1e-3), name
