"""The detector's last stage against dilated convolutions, its boxes and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from motion_jax.methods.detector import Detector, dilated_stage
from motion_jax.models import build_model, resnet3d


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
  """Two blocks in the last stage and one in the others compile sooner."""
  for name in ("r3d_50", "r2d3d_18"):
    variant = dataclasses.replace(resnet3d.VARIANTS[name], blocks=(1, 1, 1, 2))
    monkeypatch.setitem(resnet3d.VARIANTS, name, variant)


def _encoder(name):
  encoder = build_model(name, rngs=nnx.Rngs(0), width=4)
  rng = np.random.default_rng(0)
  blocks = encoder.stages[-1]
  paths = [path for b in blocks for path in (b.path, b.shortcut) if path is not None]
  for path in paths:
    for norm in path.norms:
      norm.scale[...] = jnp.asarray(rng.uniform(0.5, 1.5, norm.scale.shape))
      norm.bias[...] = jnp.asarray(0.3 * rng.standard_normal(norm.bias.shape))
      norm.mean[...] = jnp.asarray(0.3 * rng.standard_normal(norm.mean.shape))
      norm.var[...] = jnp.asarray(rng.uniform(0.5, 1.5, norm.var.shape))
  encoder.eval()
  return encoder


def _dilated(path, x):
  """A path of convolutions with spatial stride 1 and dilation 2, by XLA itself."""
  for index, (convolution, norm) in enumerate(zip(path.convs, path.norms, strict=True)):
    kernel = convolution.kernel[...]
    x = jax.lax.conv_general_dilated(
      jax.nn.relu(x) if index else x,
      kernel,
      (convolution.strides[0], 1, 1),
      [(kernel.shape[0] // 2,) * 2] + [(size - 1,) * 2 for size in kernel.shape[1:3]],
      rhs_dilation=(1, 2, 2),
      dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    x = norm(x)
  return x


def _jitted(module, function):
  """jit of function(module, ...); a module is changed only where it was merged."""
  graphdef, arrays = nnx.split(module)
  call = jax.jit(lambda arrays, *inputs: function(nnx.merge(graphdef, arrays), *inputs))
  return lambda *inputs: call(arrays, *inputs)


@pytest.mark.parametrize("name", ["r3d_50", "r2d3d_18"])
def test_the_last_stage_is_dilated_and_keeps_the_resolution(name):
  encoder = _encoder(name)
  first = encoder.stages[-1][0].path.convs[0]
  inputs = first.kernel.shape[-2]
  x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 6, 8, inputs)))
  expected = x.astype(jnp.float32)
  for block in encoder.stages[-1]:
    side = expected if block.shortcut is None else _dilated(block.shortcut, expected)
    expected = jax.nn.relu(_dilated(block.path, expected) + side)
  strides = [c.strides for path in encoder.paths() for c in path.convs]
  found = _jitted(encoder, dilated_stage)(x.astype(jnp.float32))
  assert found.shape == expected.shape and found.shape[2:4] == (6, 8)
  np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)
  assert strides == [c.strides for path in encoder.paths() for c in path.convs]


@pytest.fixture
def detector():
  detector = Detector(_encoder("r2d3d_18"), 5, dropout=0.5, rngs=nnx.Rngs(1))
  detector.eval()
  return detector


def test_a_box_is_scored_by_what_is_in_it(detector):
  rng = np.random.default_rng(0)
  video = jnp.asarray(rng.standard_normal((1, 4, 64, 96, 3)), jnp.float32)
  boxes = jnp.asarray([[[4.0, 4.0, 40.0, 60.0], [50.0, 8.0, 90.0, 60.0]]])
  score = _jitted(detector, lambda detector, *inputs: detector(*inputs))
  found = score(video, boxes)
  assert found.shape == (1, 2, 5) and found.dtype == jnp.float32
  swapped = score(video, boxes[:, ::-1])
  np.testing.assert_allclose(found, swapped[:, ::-1], atol=1e-5)
  moved = score(video, boxes + jnp.asarray([0.0, 0.0, -20.0, -20.0]))
  assert not np.allclose(found, moved, atol=1e-4)


def test_videos_and_networks_that_do_not_fit_are_refused(detector):
  with pytest.raises(ValueError, match="48x64; sides must be multiples of 32"):
    detector(jnp.zeros((1, 4, 48, 64, 3)), jnp.zeros((1, 1, 4)))
  c3d = build_model("c3d", rngs=nnx.Rngs(0), width=8)
  with pytest.raises(ValueError, match="needs a 3D ResNet"):
    Detector(c3d, 5, dropout=0.5, rngs=nnx.Rngs(0))
