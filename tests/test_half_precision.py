"""bfloat16 beside float32: batch normalisation, networks, one step of each method."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_modist
import test_classify
import test_joint
import test_mas
import test_mosi
import tiny
from flax import nnx

from motion_jax import models
from motion_jax.methods import make_method
from motion_jax.models import build_model, common
from motion_jax.models.batch_norm import BatchNorm

# Of an RMS error: rounding the exact result to bfloat16 has 0.0017 for unit variance.
ROUNDING = 0.0017


def values(ratio, *, channels=32):
  """bfloat16 [8, 4, 8, 8, C] whose means are `ratio` standard deviations."""
  rng = np.random.default_rng(0)
  x = rng.standard_normal((8, 4, 8, 8, channels))
  return jnp.asarray(x + ratio * rng.choice([-1, 1], channels), jnp.bfloat16)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ratio", [1, 3, 10])
def test_batch_norm_rounds_once_however_far_the_mean_is(ratio, train):
  x = values(ratio)
  exact = np.asarray(x, np.float64)
  axes = (0, 1, 2, 3)
  norm = BatchNorm(exact.shape[-1], eps=1e-5)
  norm.mean[...], norm.var[...] = exact.mean(axes), exact.var(axes)
  norm.use_running_average = not train
  error = np.asarray(norm(x), np.float64)
  error -= (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + 1e-5)
  assert np.sqrt(np.square(error).mean()) < 1.1 * ROUNDING
  assert np.abs(error.mean(axes)).max() < 1e-3


def dtypes_of_sums(function, *arguments):
  """The dtypes that a program adds up over axes in."""
  text = jax.jit(function).lower(*arguments).as_text()
  return re.findall(r"applies stablehlo\.add .* : \(tensor<(?:\d+x)*(\w+)>, ", text)


@pytest.mark.parametrize("network", ["batch norm", "c3d"])
def test_gradients_of_factors_and_shifts_are_summed_in_float32(network):
  """Those of C3D's biases, too; kernels have products, which add up by themselves."""
  if network == "c3d":
    shapes = dict(width=2, dtype=jnp.bfloat16, lowering="native")
    layer = build_model("c3d", rngs=nnx.Rngs(0), **shapes)
    x = jnp.ones((1, 4, 32, 32, 3))
  else:
    layer, x = BatchNorm(32, eps=1e-5, groups=2), values(3)
  graphdef, params, stats = common.split(layer)

  def loss(params, x):
    y = common.call(graphdef, params, stats, x, train=True)[0]
    return jnp.square(y.astype(jnp.float32)).sum()

  dtypes = dtypes_of_sums(jax.grad(loss, (0, 1)), params, x)
  assert len(dtypes) >= 4 and {*dtypes} == {"f32"}


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  [
    "c3d",
    "r3d_10",
    *(
      pytest.param(name, marks=pytest.mark.long) for name in ("r2plus1d_10", "slow_r50")
    ),
  ],
)
def test_networks_compute_in_bfloat16_what_they_compute_in_float32(name):
  video = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 32, 32, 3)))

  def features(dtype):
    width = 4 if name == "slow_r50" else 8
    network = build_model(name, rngs=nnx.Rngs(0), width=width, dtype=dtype)
    graphdef, params, stats = common.split(network)
    run = jax.jit(lambda *state: common.call(graphdef, *state, train=True)[0])
    return np.asarray(run(params, stats, video))

  exact, half = features(jnp.float32), features(jnp.bfloat16)
  assert half.dtype == np.float32
  assert np.linalg.norm(half - exact) < 0.05 * np.linalg.norm(exact)


def mosi_step():
  return test_mosi.smoke(), test_mosi.batch()


def modist_step():
  config = small_modist.smoke()
  return config, small_modist.batch(config)


def mas_step():
  return test_mas.smoke(flow_warps=1, flow_iterations=1), test_mas.batch()


def joint_step():
  config = test_joint.smoke()
  return config, small_modist.batch(config)


def classify_step():
  return test_classify.smoke(), test_classify.batch()


@pytest.mark.slow
@pytest.mark.parametrize(
  "make",
  [
    mosi_step,
    classify_step,
    *(
      pytest.param(m, marks=pytest.mark.long)
      for m in (modist_step, mas_step, joint_step)
    ),
  ],
)
def test_a_step_in_bfloat16_goes_where_that_in_float32_goes(make, monkeypatch):
  monkeypatch.setattr(models, "build_model", tiny.build_model)
  config, rows = make()
  key = jax.random.key(0)
  start = jax.jit(make_method(config).init)(key)

  def step(dtype):
    """Loss and gradients."""
    config.model.dtype = dtype
    gradient = jax.jit(jax.value_and_grad(make_method(config).loss, has_aux=True))
    (loss, _), found = jax.device_get(gradient(*start, rows, key, 1000))
    return float(loss), [array.ravel() for array in jax.tree.leaves(found)]

  (exact, gradients), (half, half_gradients) = step("float32"), step("bfloat16")
  assert half == pytest.approx(exact, rel=2e-3)
  assert cosine(np.concatenate(gradients), np.concatenate(half_gradients)) > 0.997
  assert min(map(cosine, gradients, half_gradients)) > 0.99  # of each array


def cosine(one, other):
  return one @ other / np.sqrt((one @ one) * (other @ other))
