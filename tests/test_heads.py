"""Classifier, batch normalisation in groups, and calls of split networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from motion_jax.models import build_model, common, heads, resnet3d, stages
from motion_jax.models.batch_norm import BatchNorm


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def classifier(dim, classes, dropout):
  return heads.Classifier(dim, classes, dropout=dropout, rngs=nnx.Rngs(0))


def ones_through_identity(dropout, key, train):
  """Logits that are the features after dropout."""
  graphdef, params, stats = common.split(classifier(50, 50, dropout))
  params["kernel"], params["bias"] = jnp.eye(50), jnp.zeros(50)
  rngs = None if key is None else nnx.Rngs(dropout=jax.random.key(key))
  ones = jnp.ones((40, 50))
  return common.call(graphdef, params, stats, ones, train=train, rngs=rngs)[0]


@pytest.fixture(scope="module")
def network():
  """A split network with one block per stage and random statistics."""
  with pytest.MonkeyPatch.context() as patch:
    row = resnet3d.Variant((1, 1, 1, 1), widths=(1, 1, 1, 2), stem_pool=True)
    patch.setitem(resnet3d.VARIANTS, "shallow", row)
    model = build_model("shallow", rngs=nnx.Rngs(0), width=4, lowering="native")
  graphdef, params, stats = common.split(model)
  stats = jax.tree.map(lambda leaf: leaf + 0.1 * normal(1, *leaf.shape), stats)
  return graphdef, params, stats


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("batch", [(3,), (2, 5)])
def test_logits_are_float32_and_keep_the_leading_axes(dtype, batch):
  head = classifier(6, 4, 0.5)
  head.eval()
  features = jnp.asarray(normal(0, *batch, 6), dtype)
  logits = head(features)
  assert (logits.shape, logits.dtype) == ((*batch, 4), jnp.float32)
  expected = np.asarray(features, np.float64) @ np.asarray(head.kernel[...])
  np.testing.assert_allclose(logits, expected + head.bias[...], atol=1e-5)


def test_weights_and_bias_are_bounded_by_the_fan_in():
  head = classifier(400, 30, 0.0)
  for value in (head.kernel[...], head.bias[...]):
    assert 0.8 * 0.05 < np.abs(value).max() <= 0.05


def test_dropout_only_acts_in_training_mode_and_follows_the_key():
  np.testing.assert_array_equal(ones_through_identity(0.3, 1, train=False), 1)
  first = np.asarray(ones_through_identity(0.3, 1, train=True))
  np.testing.assert_array_equal(first, ones_through_identity(0.3, 1, train=True))
  assert (first != ones_through_identity(0.3, 2, train=True)).mean() > 0.3
  kept = first > 0
  assert 0.25 < 1 - kept.mean() < 0.35
  np.testing.assert_allclose(first[kept], 1 / 0.7, rtol=1e-6)


def test_training_needs_a_key_only_if_features_are_dropped():
  np.testing.assert_array_equal(ones_through_identity(0.0, None, train=True), 1)
  with pytest.raises(ValueError, match="rngs"):
    ones_through_identity(0.3, None, train=True)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_probability_is_refused(dropout):
  with pytest.raises(ValueError, match=f"dropout is {dropout}"):
    classifier(3, 2, dropout)


@pytest.mark.parametrize(
  ("layers", "hidden", "count"),
  [(1, None, 32_896), (2, None, 65_792 + 32_896), (3, 64, 16_448 + 4_160 + 8_320)],
)
def test_projections_are_linear_layers_with_relu_between(layers, hidden, count):
  head = heads.Projection(256, layers=layers, hidden=hidden, rngs=nnx.Rngs(0))
  assert common.parameter_count(head) == count
  features = normal(0, 5, 256)
  embedding = head(jnp.asarray(features, jnp.bfloat16))
  assert (embedding.shape, embedding.dtype) == ((5, 128), jnp.float32)
  expected = features
  for index, layer in enumerate(head.layers):
    expected = np.maximum(expected, 0) if index else expected
    expected = expected @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
    assert np.abs(layer.kernel[...]).max() <= len(layer.kernel) ** -0.5
  np.testing.assert_allclose(head(features), expected, atol=1e-5)
  assert (expected < 0).any()


def test_a_projection_may_end_with_batch_normalisation():
  plain = heads.Projection(16, 4, rngs=nnx.Rngs(0))
  normed = heads.Projection(16, 4, norm=True, bn_groups=2, rngs=nnx.Rngs(0))
  features = 1 + 0.1 * np.abs(normal(0, 8, 16))  # a narrow cone, as pooled features
  raw = np.asarray(plain(features)).reshape(2, 4, 4)
  expected = (raw - raw.mean(1, keepdims=True)) / np.sqrt(
    raw.var(1, keepdims=True) + 1e-5
  )
  np.testing.assert_allclose(normed(features), expected.reshape(8, 4), atol=1e-3)
  assert plain.norm is None


def test_a_projection_without_layers_is_refused():
  with pytest.raises(ValueError, match="0 layers; expected 1 or more"):
    heads.Projection(8, layers=0, rngs=nnx.Rngs(0))


def batch_norm(groups=1, eps=1e-3):
  norm = BatchNorm(3, eps=eps, groups=groups)
  norm.scale[...], norm.bias[...] = normal(1, 3), normal(2, 3)
  norm.mean[...], norm.var[...] = normal(3, 3), np.abs(normal(4, 3))
  return norm


def test_batch_norm_groups_equal_separate_batch_norms():
  x = normal(0, 6, 2, 3, 4, 3) + np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1, 1)
  whole = batch_norm(groups=3)
  y = whole(x)
  parts = [batch_norm() for _ in range(3)]
  separate = [norm(x[2 * i : 2 * i + 2]) for i, norm in enumerate(parts)]
  np.testing.assert_allclose(y, np.concatenate(separate), atol=1e-5)
  assert np.abs(y - batch_norm()(x)).max() > 0.1
  for name in ("mean", "var"):
    average = np.mean([np.array(getattr(norm, name)[...]) for norm in parts], axis=0)
    np.testing.assert_allclose(getattr(whole, name)[...], average, rtol=1e-5)


@pytest.mark.parametrize(
  ("groups", "order"),
  [
    (3, [0, 3, 1, 4, 2, 5]),
    # Of more than eight, those that are neighbours: here seven and seven of 14 ...
    (14, [n + 14 * half for half in (0, 1) for g in range(7) for n in (g, g + 7)]),
    # ... if some 4 to 8 can be taken together.
    (11, [n for g in range(11) for n in (g, g + 11)]),
  ],
)
def test_interleaved_groups_are_those_of_every_nth_example(groups, order):
  order = np.array(order)
  rows = len(order)
  shift = np.arange(rows, dtype=np.float32).reshape(rows, 1, 1, 1, 1)
  x = normal(0, rows, 2, 3, 4, 3) + shift
  found, expected = batch_norm(groups=groups), batch_norm(groups=groups)
  found.interleaved = True
  np.testing.assert_allclose(found(x)[order], expected(x[order]), atol=1e-5)
  for name in ("mean", "var"):
    one, other = (getattr(norm, name)[...] for norm in (found, expected))
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("interleaved", [False, True])
def test_frames_as_rows_of_the_batch_are_normalised_with_their_example(interleaved):
  x = normal(0, 6, 5, 4, 3, 3) + np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1, 1)
  found, expected = batch_norm(groups=3), batch_norm(groups=3)
  found.interleaved = expected.interleaved = interleaved
  y = found(x.reshape(30, 1, 4, 3, 3), frames=5)
  np.testing.assert_allclose(y.reshape(x.shape), expected(x), atol=1e-5)
  for name in ("mean", "var"):
    one, other = (getattr(norm, name)[...] for norm in (found, expected))
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_batch_norm_normalises_by_the_biased_and_tracks_the_unbiased_variance():
  x = normal(0, 2, 1, 2, 2, 3) * 3 + 1
  norm = batch_norm()
  y = norm(x)
  wide = x.astype(np.float64)
  mean, var = wide.mean((0, 1, 2, 3)), wide.var((0, 1, 2, 3))
  expected = (wide - mean) / np.sqrt(var + 1e-3) * normal(1, 3) + normal(2, 3)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  running = 0.9 * normal(3, 3) + 0.1 * mean
  np.testing.assert_allclose(norm.mean[...], running, rtol=1e-5)
  running = 0.9 * np.abs(normal(4, 3)) + 0.1 * var * 8 / 7
  np.testing.assert_allclose(norm.var[...], running, rtol=1e-5)


def test_batch_norm_uses_its_averages_in_evaluation_mode():
  x, norm = normal(0, 5, 1, 2, 2, 3), batch_norm(groups=2)
  norm.eval()
  y = norm(x)
  factor = normal(1, 3) / np.sqrt(np.abs(normal(4, 3)) + 1e-3)
  expected = (x - normal(3, 3)) * factor + normal(2, 3)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  np.testing.assert_array_equal(norm.mean[...], normal(3, 3))
  np.testing.assert_array_equal(norm.var[...], np.abs(normal(4, 3)))


def test_batch_norm_statistics_stay_float32_for_bfloat16_input():
  norm = batch_norm()
  y = norm(jnp.asarray(normal(0, 4, 1, 2, 2, 3), jnp.bfloat16))
  assert y.dtype == jnp.bfloat16
  assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32


def test_a_batch_that_the_groups_do_not_divide_is_refused():
  with pytest.raises(ValueError, match=r"batch 5 .* 2 BatchNorm groups; try 4"):
    batch_norm(groups=2)(normal(0, 5, 1, 2, 2, 3))


def test_until_and_after_compose_to_a_plain_call(network):
  video = normal(0, 2, 4, 32, 32, 3)

  @jax.jit
  def features():
    def run(method, *args):
      return common.call(*network, *args, train=False, method=method)[0]

    ends = run("endpoints", video)
    halves = {name: run("until", video, name) for name in stages.ENDPOINTS}
    joined = {name: run("after", halves[name], name) for name in halves}
    return run("__call__", video), ends, halves, joined

  plain, ends, halves, joined = features()
  assert tuple(halves) == ("conv1", "conv2", "conv3", "conv4", "conv5", "pooled")
  shapes = [halves[name].shape[1:] for name in halves]
  assert shapes[:2] == [(4, 8, 8, 4)] * 2
  assert shapes[-2:] == [(1, 1, 1, 8), (8,)]
  assert np.abs(plain).max() > 0
  for name in halves:
    np.testing.assert_allclose(halves[name], ends[name], atol=1e-6)
    np.testing.assert_allclose(joined[name], plain, atol=1e-6)


def test_every_parameter_and_statistic_belongs_to_one_stage(network):
  prefixes = nnx.merge(*network).stage_paths()
  assert len(prefixes) == len(stages.STAGES)
  for tree in network[1:]:
    owners = [
      [index for index, prefix in enumerate(prefixes) if path[: len(prefix)] == prefix]
      for path, _ in nnx.to_flat_state(nnx.State(tree))
    ]
    assert sorted({index for [index] in owners}) == [0, 1, 2, 3, 4]


def test_an_unknown_endpoint_is_named(network):
  for method in ("until", "after"):
    with pytest.raises(ValueError, match=r"'conv6' is unknown.*pooled"):
      common.call(*network, normal(0, 1), "conv6", train=False, method=method)


def test_call_leaves_its_inputs_untouched():
  graphdef, params, stats = common.split(batch_norm())
  before = jax.tree.map(np.array, (params, stats))
  x = normal(0, 2, 1, 2, 2, 3)
  trained, after = common.call(graphdef, params, stats, x, train=True)
  jax.tree.map(np.testing.assert_array_equal, (params, stats), before)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(after))
  assert np.abs(after["mean"] - stats["mean"]).min() > 0
  # Training mode is not remembered either.
  evaluated, same = common.call(graphdef, params, stats, x, train=False)
  jax.tree.map(np.testing.assert_array_equal, same, stats)
  assert np.abs(evaluated - trained).max() > 0.1
  again, _ = common.call(graphdef, params, stats, x, train=True)
  np.testing.assert_array_equal(again, trained)
