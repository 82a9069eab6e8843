"""Products that promise float32 ask every device for it; the rest as configured."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.evaluation.measures import linear, retrieval
from motion_jax.models import c3d, common, encoder_of, heads, raft
from motion_jax.ops import augment, contrast, crops, planes, roi_align


def precisions(function, *arguments, platform=None):
  """Those of all matrix products and convolutions of a program, as a set."""
  traced = jax.jit(function).trace(*arguments)
  lowered = traced.lower(lowering_platforms=(platform,) if platform else None)
  lines = lowered.as_text().splitlines()
  products = [
    line for line in lines if re.search(r"stablehlo\.(dot_general|convolution)", line)
  ]
  assert products
  return {
    name
    for line in products
    for name in re.findall(r"\b(DEFAULT|HIGHEST|HIGH)\b", line) or ["DEFAULT"]
  }


def ones(*shape):
  return jnp.ones(shape, jnp.float32)


def gradient(module):
  """Of the parameters and of the input; those are products, too."""
  graphdef, params, stats = common.split(module)

  def loss(params, x):
    return common.call(graphdef, params, stats, x, train=True)[0].sum()

  return lambda x: jax.grad(loss, (0, 1))(params, x)


def raft_network():
  model = raft.Raft("small")
  return lambda frames: model(frames, frames, 1)


def scored(query):
  queue = contrast.make_queue(jax.random.key(0), size=16, batch_size=4, dim=8)
  ids = jnp.arange(4)

  def loss(query):
    return contrast.score_negatives(query, queue, ids).log_sum.sum()

  return jax.grad(loss)(query)


PROMISED = {
  "classifier": (
    gradient(heads.Classifier(8, 3, dropout=0.0, rngs=nnx.Rngs(0))),
    (4, 8),
  ),
  "projection": (gradient(heads.Projection(8, 4, layers=3, rngs=nnx.Rngs(0))), (4, 8)),
  "c3d head": (gradient(c3d.FullyConnected(8, 3, hidden=4, rngs=nnx.Rngs(0))), (4, 8)),
  "negatives": (scored, (4, 8)),
  "keys of a batch": (
    lambda x: contrast.is_nearest_key(x, x, jnp.ones(4, bool)),
    (4, 8),
  ),
  "raft": (raft_network(), (1, 128, 128, 3)),
  "roi": (
    lambda x: roi_align.roi_align(x, ones(1, 1, 4), scale=1.0),
    (1, 4, 4, 2),
  ),
  "resampling": (lambda x: planes.resize(x, (3, 3), planes.linear), (1, 8, 8)),
}


# Two bfloat16 numbers tell an image's float32 as well as is needed.
IMAGES = {
  "blur": (lambda x: augment.gaussian_blur(x, ones(1)), (1, 2, 16, 16, 3)),
  "crops": (
    lambda x: crops.resize_crops(x, jnp.full((1, 1, 4), 4), size=8),
    (1, 2, 16, 16, 3),
  ),
}


@pytest.mark.parametrize("name", [*PROMISED, *IMAGES])
def test_float32_means_float32_on_every_device(name):
  function, shape = (PROMISED | IMAGES)[name]
  for platform in ("cpu", "cuda"):
    assert precisions(function, ones(*shape), platform=platform) == {"HIGHEST"}
  expected = "HIGH" if name in IMAGES else "HIGHEST"
  assert precisions(function, ones(*shape), platform="tpu") == {expected}


def test_probes_and_neighbours_are_float32():
  labels, weight = np.arange(6) % 2, np.ones(6, np.float32)

  def solve(x):
    return linear._solve(x, labels, weight, 1.0, 2)

  assert precisions(solve, ones(6, 4)) == {"HIGHEST"}
  search = lambda x: retrieval._search(x, x, 2)  # noqa: E731
  assert precisions(search, ones(6, 4)) == {"HIGHEST"}


@pytest.mark.parametrize(
  ("settings", "expected"),
  [
    (dict(dtype="bfloat16"), "DEFAULT"),
    (dict(dtype="float32"), "DEFAULT"),
    (dict(dtype="float32", precision="highest"), "HIGHEST"),
    (dict(dtype="float32", precision="high"), "HIGH"),
  ],
)
@pytest.mark.parametrize("name", ["c3d", "r3d_10"])
def test_convolutions_are_as_configured(name, settings, expected):
  rest = dict(name=name, width=2, lowering="native", remat=False, bn_groups=1)
  network = encoder_of(ConfigDict(rest | settings), nnx.Rngs(0))
  graphdef, params, stats = common.split(network)

  def stage(params, video):
    run = common.call(
      graphdef, params, stats, video, "conv3", train=True, method="until"
    )
    return run[0].astype(jnp.float32).sum()

  assert precisions(jax.grad(stage), params, ones(1, 4, 32, 32, 3)) == {expected}


def test_an_unknown_precision_is_named():
  with pytest.raises(UserError, match=r"model\.precision 'hihg'.*Did you mean 'high'"):
    encoder_of(ConfigDict(dict(precision="hihg")), nnx.Rngs(0))
