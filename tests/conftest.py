"""Shared by all tests: compiled programs are cached, small picture folders are made."""

import logging
import os
import pathlib

import cv2
import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]

# The tests compile much and compute little: without the compiler's optimisations a step
# of a small R-2D3D-18 compiles in 21 instead of 48 s of processor time, and in 11 by
# the older way of making loops, which jax 0.12 no longer has. Set before JAX looks, for
# child processes, too.
_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if tuple(map(int, jax.__version__.split(".")[:2])) < (0, 11):
  _FAST += " --xla_cpu_use_fusion_emitters=false"
# test_optimised.py runs the golden ones once more, with the programs that users run.
if "OPTIMISED" not in os.environ:
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FAST}".strip()


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
  """Programs compiled once serve the whole session, its child processes included."""
  path = os.environ.get("JAX_COMPILATION_CACHE_DIR")
  if not path:
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all of them
      base = base.parent
    path = str(base / "xla")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = path
  jax.config.update("jax_compilation_cache_dir", path)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(autouse=True)
def log_lines():
  """Console logging that a test turned on ends with it: `caplog` hears all others."""
  logger = logging.getLogger("motion_jax")
  before = logger.handlers, logger.level, logger.propagate
  yield
  logger.handlers, logger.propagate = before[0], before[2]
  logger.setLevel(before[1])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
  """A folder of 24 textured JPEG pictures of several sizes."""
  folder = tmp_path_factory.mktemp("pictures")
  rng = np.random.default_rng(0)
  for index in range(24):
    height, width = rng.integers(70, 140, 2)
    coarse = rng.integers(0, 256, (9, 9, 3), np.uint8)
    picture = cv2.resize(coarse, (int(width), int(height)))
    picture = cv2.add(picture, rng.integers(0, 60, picture.shape, np.uint8))
    cv2.imwrite(str(folder / f"{index:02d}.jpg"), picture)
  return folder
