"""Every method trains alike however its work is split: on devices, in processes."""

import json
import os
import socket
import subprocess
import sys

import children
import numpy as np
import pytest
from conftest import ROOT

PROCESSES = 2
METHODS = ("mosi", "modist", "mas", "joint", "classify", "detect")


def environment(devices):
  """Of a process with so many devices, which compiles fast: it computes little."""
  flags = (
    f"--xla_force_host_platform_device_count={devices}",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
  )
  paths = f"{ROOT}:{ROOT}/tests"
  settings = dict(JAX_PLATFORMS="cpu", PYTHONPATH=paths, XLA_FLAGS=" ".join(flags))
  return {**os.environ, **settings}


def command(name, devices, *more):
  return [sys.executable, ROOT / "tests" / "same_steps.py", name, devices, *more]


def on_devices(name, counts):
  """{devices: numbers} of one process."""
  counts = [str(count) for count in counts]
  result = children.run(
    command(name, ",".join(counts)), env=environment(counts[-1]), timeout=900
  )
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)[name]
  return [found[count] for count in counts]


def in_processes(name):
  """Numbers of two processes with two devices each."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  devices = str(2 * PROCESSES)
  commands = [
    command(name, devices, address, f"--process_index={index}")
    for index in range(PROCESSES)
  ]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  with children.started(*commands, env=environment(2), **pipes) as processes:
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
@pytest.mark.parametrize("name", ["mosi", "modist"])
def test_one_and_four_devices_train_alike(name):
  one, four = on_devices(name, (1, 4))
  assert_alike(four, one)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_one_two_four_and_eight_devices_train_alike(name):
  one, *others = on_devices(name, (1, 2, 4, 8))
  for numbers in others:
    assert_alike(numbers, one)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_train_like_one_device(name):
  [one] = on_devices(name, (1,))
  assert_alike(in_processes(name), one)
