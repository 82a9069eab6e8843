"""Encoders that leave: a function that JAX alone runs, a file that PyTorch reads."""

import subprocess
import sys

import numpy as np
import pytest
from test_config import CONFIGS, load

from motion_jax import export
from motion_jax.config import UserError
from motion_jax.methods import make_method
from motion_jax.models import build_model, convert
from motion_jax.scale import sharding
from motion_jax.training import checkpoint, state
from motion_jax.training.trained_encoder import TrainedEncoder, load_encoder


@pytest.fixture(scope="module", params=["r2d3d_18", "c3d"])
def trained(request):
  """An untrained encoder, in the guise of a trained one."""
  import jax

  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.model.name, config.model.lowering = request.param, "native"
  method = make_method(config)
  weights = state.initial_weights(method, jax.random.key(0), sharding.make_mesh())
  return TrainedEncoder(method.encoder(*weights), config, 3)


RUN = """
import pathlib, sys, jax.export, numpy
encode = jax.export.deserialize(pathlib.Path(sys.argv[1]).read_bytes()).call
video = numpy.load(sys.argv[2])
features = encode(video)
assert encode(video[:1]).shape == (1, features.shape[1])
numpy.save(sys.argv[3], features)
assert "motion_jax" not in sys.modules
"""


@pytest.mark.slow
def test_the_exported_function_needs_nothing_but_jax(trained, tmp_path):
  video = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), np.uint8)
  path = tmp_path / "encoder.stablehlo"
  export.save_function(trained, path)
  np.save(tmp_path / "video.npy", video)
  files = [path, tmp_path / "video.npy", tmp_path / "features.npy"]
  subprocess.run([sys.executable, "-c", RUN, *map(str, files)], check=True)
  np.testing.assert_allclose(np.load(files[2]), trained(video), rtol=1e-4, atol=1e-5)


def test_weights_come_back_from_the_state_dict(trained, tmp_path):
  path = tmp_path / "encoder.pth"
  if trained.config.model.name == "c3d":
    with pytest.raises(UserError, match=r"c3d cannot be .* --out=.*encoder\.stablehlo"):
      export.save_state_dict(trained, path, "tada")
    return
  from flax import nnx

  export.save_state_dict(trained, path, "tada")
  fresh = build_model("r2d3d_18", rngs=nnx.Rngs(9), width=trained.config.model.width)
  _, report = convert.import_weights(fresh, convert.load_torch(path), "tada")
  assert not report.missing and not report.unexpected
  with pytest.raises(UserError, match="Did you mean 'tada'"):
    export.save_state_dict(trained, path, "tadaa")


def run_of(config, workdir):
  """Writes an untrained run; returns its classifiers."""
  import jax

  method = make_method(config)
  weights = state.initial_weights(method, jax.random.key(0), sharding.make_mesh())
  checkpoints = checkpoint.Checkpoints(workdir)
  checkpoints.save_weights(*weights, config.to_dict())
  checkpoints.close()
  return method.classifiers(*weights)


@pytest.mark.slow
def test_a_classifier_goes_along_under_the_name_of_the_layout(tmp_path):
  config = load(CONFIGS / "finetune.py").get_config("smoke")
  config.model.name, config.method.classes = "r3d_18", 5
  (head,) = run_of(config, tmp_path / "run")
  path = tmp_path / "network.pth"
  for layout, name in (("", "head.out"), ("torchvision", "fc")):
    export.export(str(tmp_path / "run"), str(path), layout)
    found = convert.load_torch(path)
    assert [*found][-2:] == [f"{name}.weight", f"{name}.bias"]
    np.testing.assert_array_equal(found[f"{name}.weight"], head.kernel[...].T)
    np.testing.assert_array_equal(found[f"{name}.bias"], head.bias[...])


@pytest.mark.slow
def test_heads_without_a_name_stay_behind_and_that_is_said(tmp_path, caplog):
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.method.labels = "separate"
  assert len(run_of(config, tmp_path / "run")) == 2
  trained = load_encoder(tmp_path / "run")
  path = tmp_path / "network.pth"
  with caplog.at_level("INFO", "motion_jax"):
    export.save_state_dict(trained, path, "tada")
    assert "no classifier: layout 'tada' has no names for 2 heads" in caplog.text
    assert "batch norms with eps=0.001" in caplog.text
    trained.classifiers = trained.classifiers[:1]
    export.save_state_dict(trained, path, "dpc")
    assert "no classifier: layout 'dpc' has no classifier" in caplog.text
    trained.classifiers = ()
    export.save_state_dict(trained, path, "tada")
    assert "no classifier: the run holds none" in caplog.text
  assert not any(name.startswith("head.") for name in convert.load_torch(path))
