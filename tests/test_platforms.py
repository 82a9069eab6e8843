"""What other systems lack is no reason to fail, and is told."""

import errno
import os
import subprocess
import sys

from conftest import ROOT

from motion_jax.data import disk

# Makes a data set on a system without `fcntl`.
WITHOUT_FCNTL = """
import pathlib, sys
sys.modules["fcntl"] = None
from motion_jax import prepare
from motion_jax.data import disk
with disk.writing(pathlib.Path(sys.argv[1])):
  print("written")
"""


def test_without_file_locks_data_sets_are_made_with_a_warning(tmp_path):
  words = [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path / "data")]
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  found = subprocess.run(words, env=environment, capture_output=True, text=True)
  assert (found.returncode, found.stdout) == (0, "written\n"), found.stderr
  assert "no file locks" in found.stderr and str(tmp_path) in found.stderr


def test_file_systems_without_locks_are_as_systems_without_them(
  tmp_path, monkeypatch, caplog
):
  def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr("fcntl.flock", refuse)
  with disk.writing(tmp_path / "data"):
    (tmp_path / "data" / "written").touch()
  assert "no file locks" in caplog.text
