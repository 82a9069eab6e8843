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
  monkeypatch.setattr(backend, "_NVIDIA", tmp_path / "nvidiactl")
  monkeypatch.setattr(backend, "_PCI", tmp_path / "pci")


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


def add_card(folder, vendor, kind):
  """As Linux shows a PCI device below /sys/bus/pci/devices."""
  folder.mkdir(parents=True)
  (folder / "vendor").write_text(f"{vendor}\n")
  (folder / "class").write_text(f"{kind}\n")


def test_the_devices_are_told_first(caplog):
  with caplog.at_level("INFO", logger="motion_jax"):
    backend.announce()
  assert f"jax {jax.__version__} on cpu: {jax.device_count()} x cpu" in caplog.text
  assert "ITS CPU" not in caplog.text


@pytest.mark.parametrize("asked", ["cpu", None])
def test_a_gpu_that_jax_does_not_use_is_told_loudly(
  caplog, monkeypatch, tmp_path, asked
):
  (tmp_path / "nvidiactl").touch()
  before = jax.config.jax_platforms
  jax.config.update("jax_platforms", asked)
  try:
    backend.announce()
  finally:
    jax.config.update("jax_platforms", before)
  assert "AN NVIDIA GPU, AND JAX RUNS ON ITS CPU" in caplog.text
  assert ("JAX_PLATFORMS is 'cpu'" if asked else "[cuda13]") in caplog.text


def test_of_google_only_a_tpu_is_told_of(caplog, tmp_path):
  add_card(tmp_path / "pci" / "0", "0x1ae0", "0x020000")  # a network card
  add_card(tmp_path / "pci" / "1", "0x1ae0", "0x010802")  # a disk
  add_card(tmp_path / "pci" / "2", "0x8086", "0x120000")
  backend.announce()
  assert "ITS CPU" not in caplog.text
  add_card(tmp_path / "pci" / "3", "0x1ae0", "0x00ff00")
  backend.announce()
  assert "A TPU, AND JAX RUNS ON ITS CPU" in caplog.text
