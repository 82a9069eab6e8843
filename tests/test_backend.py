"""XLA's flags: those of users win, programs set them before JAX starts."""

import os
import sys

import children
import pytest

from motion_jax import backend

GPU = ["--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0"]
YNN = "--xla_cpu_experimental_ynn_fusion_type"


def flags_after(monkeypatch, given="", version="0.10.2", **options):
  monkeypatch.setenv("XLA_FLAGS", given)
  monkeypatch.setattr(backend.jaxlib, "__version__", version)
  backend.set_flags(**options)
  return os.environ["XLA_FLAGS"].split()


@pytest.mark.parametrize(
  ("version", "deterministic", "expected"),
  [
    ("0.10.2", False, [f"{YNN}="]),
    ("0.10.2", True, [f"{YNN}=", *GPU]),
    ("0.12.0.1", False, []),  # which may not know the flag: JAX would not start
    ("0.12.0.1", True, GPU),
  ],
)
def test_flags_are_those_of_the_version(monkeypatch, version, deterministic, expected):
  found = flags_after(monkeypatch, "", version, deterministic=deterministic)
  assert found == expected


def test_flags_that_are_set_stay_as_they_are(monkeypatch):
  given = [f"{YNN}=-reduce", "--xla_gpu_autotune_level=4", "--xla_dump_to=x"]
  found = flags_after(monkeypatch, " ".join(given), deterministic=True)
  assert found == [*given, GPU[0]]
  assert flags_after(monkeypatch, " ".join(found), deterministic=True) == found


PROGRAM = """
import sys
from motion_jax import command

def program():
  import os
  import jax
  print(jax.numpy.ones(3).sum(), os.environ["XLA_FLAGS"])

sys.exit(command.run(program, sys.argv))
"""


def test_a_program_starts_with_them_and_says_so_in_its_environment():
  environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
  words = [sys.executable, "-c", PROGRAM, "--deterministic"]
  process = children.run(words, env=environment, cwd=children.TESTS.parent)
  assert process.returncode == 0, process.stderr
  total, *found = process.stdout.split()
  assert total == "3.0" and found[-2:] == GPU
