"""Installed from a clone, the package is found wherever a script lies."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

BUILD = "import setuptools.build_meta as b, sys; b.build_editable(sys.argv[1])"
SCRIPT = """
import site, sys
site.addsitedir(sys.argv[1])
import motion_jax
print(motion_jax.HERE)
"""


def test_the_folder_of_the_clone_does_not_hide_the_package(tmp_path):
  pytest.importorskip("wheel")
  clone = tmp_path / "motion_jax"  # as git clone calls it
  (clone / "motion_jax" / "ops").mkdir(parents=True)
  for name in ("setup.py", "pyproject.toml", "README.md"):
    shutil.copy(ROOT / name, clone)
  (clone / "motion_jax" / "__init__.py").write_text("HERE = 'found'\n")
  (clone / "motion_jax" / "ops" / "__init__.py").touch()
  command = [sys.executable, "-c", BUILD, str(tmp_path)]
  built = subprocess.run(command, cwd=clone, capture_output=True, text=True)
  assert built.returncode == 0, built.stderr
  (wheel,) = tmp_path.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(tmp_path / "site")
  (tmp_path / "script.py").write_text(SCRIPT)  # beside the clone
  # -S: without what is installed here, which may be the package itself.
  command = [sys.executable, "-S", tmp_path / "script.py", tmp_path / "site"]
  found = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)
  assert found.stdout == "found\n", found.stderr
