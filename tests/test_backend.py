"""XLA's flags: those of users win, programs set them before JAX starts."""

import os
import sys

import children
import jax
import pytest

from motion_jax.scale import backend

GPU = ["--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0"]
LAST = "--xla_gpu_force_conv_nhwc=true"


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch, tmp_path):
  monkeypatch.setattr(backend, "_DRIVER", tmp_path / "nvidiactl")


def flags_after(monkeypatch, given="", **options):
  monkeypatch.setenv("XLA_FLAGS", given)
  backend.set_flags(**options)
  return os.environ["XLA_FLAGS"].split()


def test_flags_are_set_when_asked_for(monkeypatch):
  assert flags_after(monkeypatch) == []
  assert flags_after(monkeypatch, deterministic=True) == GPU


def test_flags_that_are_set_stay_as_they_are(monkeypatch):
  given = ["--xla_gpu_autotune_level=4", "--xla_dump_to=x"]
  found = flags_after(monkeypatch, " ".join(given), deterministic=True)
  assert found == [*given, GPU[0]]
  assert flags_after(monkeypatch, " ".join(found), deterministic=True) == found


@pytest.mark.parametrize(
  ("platforms", "plugin", "expected"),
  [
    ("", "jax_cuda13_plugin", [LAST]),
    ("cuda,cpu", "jax_cuda12_plugin", [LAST]),
    ("cpu", "jax_cuda13_plugin", []),
    ("", "jax_rocm7_plugin", []),
  ],
)
def test_on_nvidia_gpus_convolutions_are_channels_last(
  monkeypatch, tmp_path, platforms, plugin, expected
):
  (tmp_path / "nvidiactl").touch()
  (tmp_path / f"{plugin}.py").touch()
  monkeypatch.syspath_prepend(tmp_path)
  before = jax.config.jax_platforms
  jax.config.update("jax_platforms", platforms or None)
  try:
    assert flags_after(monkeypatch) == expected
    own = "--xla_gpu_force_conv_nhwc=false"
    assert flags_after(monkeypatch, own, deterministic=True) == [own, *GPU]
  finally:
    jax.config.update("jax_platforms", before)


PROGRAM = """
import sys
from motion_jax.commands import command

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
