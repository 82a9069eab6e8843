"""The golden numbers with the compiler's optimisations, as users run the programs.

All other tests compile without them; see conftest.py.
"""

import os
import re
import sys

import children
import pytest
from conftest import ROOT

OPERATIONS = "augment contrast crops flow retrieval roi_align statistics trajectory"
NETWORKS = "c3d raft resnet3d"


@pytest.mark.parametrize(
  ("names", "least"),
  [
    pytest.param(OPERATIONS, 46, marks=pytest.mark.slow),
    pytest.param(NETWORKS, 31, marks=pytest.mark.long),
  ],
)
def test_golden_numbers_hold_in_optimised_programs(names, least, tmp_path):
  files = [f"tests/test_{name}.py" for name in names.split()]
  environment = {**os.environ, "OPTIMISED": "1", "JAX_PLATFORMS": "cpu"}
  for name in ("XLA_FLAGS", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
    environment.pop(name, None)
  words = [sys.executable, "-m", "pytest", "-q", "-k", "golden", *files]
  words += ["-p", "no:xdist", f"--basetemp={tmp_path / 'base'}"]
  done = children.run(words, env=environment, cwd=ROOT, timeout=1200)
  assert done.returncode == 0, done.stdout
  assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= least
