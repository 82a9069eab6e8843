"""Child processes of tests, which end with their test whatever becomes of it."""

import contextlib
import os
import pathlib
import signal
import subprocess

TESTS = pathlib.Path(__file__).parent


def environment(devices: int) -> dict[str, str]:
  """That of a Python program with so many CPU devices, which can import the tests."""
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
  paths = f"{TESTS.parent}:{TESTS}"
  return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths, "XLA_FLAGS": flags}


@contextlib.contextmanager
def started(*commands, **options):
  """Starts commands, each with its own children in a process group of its own.

  Yields:
    The `subprocess.Popen` of each; at the end, what is left of their groups is killed.
  """
  processes = []
  try:
    for command in commands:
      words = [*map(str, command)]
      process = subprocess.Popen(words, start_new_session=True, text=True, **options)
      processes.append(process)
    yield processes
  finally:
    for process in processes:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
      process.wait()
      for pipe in filter(None, (process.stdout, process.stderr)):
        pipe.close()


def run(command, *, timeout=300, **options) -> subprocess.CompletedProcess:
  """As `subprocess.run` with captured output, but nothing outlives it."""
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  with started(command, **pipes, **options) as [process]:
    output, errors = process.communicate(timeout=timeout)
  return subprocess.CompletedProcess(command, process.returncode, output, errors)
