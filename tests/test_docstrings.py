"""What the package exports is documented, with examples that run."""

import doctest
import inspect
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from ml_collections import ConfigDict
from test_config import CONFIGS, load

import motion_jax
from motion_jax import models
from motion_jax.methods import make_method
from motion_jax.recipe import COMMON
from motion_jax.training.checkpoint import Checkpoints

NAMES = dict(COMMON=COMMON, ConfigDict=ConfigDict, jax=jax, jnp=jnp, nnx=nnx, np=np)


def exported(module, name):
  """Yields (name, object) of what a module exports, and of what its modules do."""
  for each in module.__all__:
    found = getattr(module, each)
    yield f"{name}.{each}", found
    if isinstance(found, types.ModuleType) and hasattr(found, "__all__"):
      yield from exported(found, f"{name}.{each}")


PUBLIC = {"motion_jax": motion_jax, **dict(exported(motion_jax, "motion_jax"))}
# Each once, under its shortest name; NETWORKS is a tuple.
DOCUMENTED = {v: k for k, v in reversed(PUBLIC.items()) if not isinstance(v, tuple)}
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A home with the videos and the run that examples speak of."""
  home = tmp_path_factory.mktemp("home")
  for name in ("dive", "run"):
    (home / "videos" / name).mkdir(parents=True)
    for letter in "abcd":
      path = home / "videos" / name / f"{letter}.png"
      cv2.imwrite(str(path), np.zeros((20, 24, 3), np.uint8))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(models, "build_model", tiny.build_model)
    config = load(CONFIGS / "mosi.py").get_config("smoke,network=r3d_10")
    weights = jax.jit(make_method(config).init)(jax.random.key(0))
    run = Checkpoints(home / "runs" / "mosi-folder")
    run.save_weights(*weights, config.to_dict())
    run.close()
  return home


@pytest.mark.parametrize("name", sorted(DOCUMENTED.values()))
def test_every_export_has_examples_and_they_run(name, place, monkeypatch):
  target = PUBLIC[name]
  monkeypatch.setenv("HOME", str(place))
  monkeypatch.chdir(place)
  if "load_encoder" in name or name == "motion_jax":
    monkeypatch.setattr(models, "build_model", tiny.build_model)
  inside = inspect.ismodule(target) and not hasattr(target, "__all__")
  finder = doctest.DocTestFinder(recurse=inside)
  home = target if inspect.ismodule(target) else inspect.getmodule(target)
  tests = finder.find(target, name, globs={**vars(home), **NAMES})
  assert inspect.getdoc(target) and sum(len(test.examples) for test in tests)
  runner = doctest.DocTestRunner(optionflags=OPTIONS)
  said = []
  for test in tests:
    runner.run(test, out=said.append)
  assert not runner.failures, "".join(said)
