"""C3D: parameter counts, golden numbers, endpoints, sizes, classifiers."""

import functools

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from motion_jax.models import build_classifier, build_model, c3d, common, heads, stages

GOLDEN = "net_c3d5_two_branch"
BRANCHES = {"motion": 14, "appearance": 13}


class TwoBranches(nnx.Module):
  """The network of the paper: an encoder and two stacks of fully connected layers."""

  def __init__(self, *, rngs, **options):
    self.encoder = build_model("c3d", rngs=rngs, **options)
    for name, outputs in BRANCHES.items():
      head = c3d.FullyConnected(self.encoder.features, outputs, rngs=rngs)
      setattr(self, name, head)

  def __call__(self, video):
    ends = self.encoder.endpoints(video)
    for name in BRANCHES:
      head = getattr(self, name)
      ends[f"{name}_fc6"] = head.fc6(ends["pooled"])
      ends[f"{name}_fc7"] = head.fc7(nnx.relu(ends[f"{name}_fc6"]))
    logits = [getattr(self, name)(ends["pooled"]) for name in BRANCHES]
    return ends, jnp.concatenate(logits, -1)


def small(**options):
  options = {"lowering": "native", **options}  # compiles faster
  return build_model("c3d", rngs=nnx.Rngs(0), width=4, **options)


def video(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=(*shape, 3)).astype(np.float32)


def test_parameter_counts_are_those_of_the_paper():
  encoder = nnx.eval_shape(lambda: build_model("c3d", rngs=nnx.Rngs(0)))
  assert common.parameter_count(encoder) == 4_651_008
  assert (encoder.features, encoder.hidden) == (4096, 2048)

  def head(classes):
    module = nnx.eval_shape(
      lambda: build_classifier(encoder, classes, dropout=0.5, rngs=nnx.Rngs(0))
    )
    return common.parameter_count(module)

  assert 4_651_008 + head(14) == 17_266_702
  assert 4_651_008 + head(14) + head(13) == 29_880_347
  assert 4_651_008 + head(101) == 17_444_965


@functools.cache
def golden_model():
  """The two-branch network with golden weights."""
  weights = golden_weights.weights(GOLDEN)
  model = nnx.eval_shape(lambda: TwoBranches(rngs=nnx.Rngs(0)))
  stages = {f"conv{i + 1}": stage for i, stage in enumerate(model.encoder.stages)}
  loaded = 0
  for name, value in weights.items():
    place, _, leaf = name.rpartition(".")
    branch, _, layer = place.partition(".")
    if place in stages:
      stage = stages[place]
      variable = stage.bias if leaf == "bias" else stage.conv.kernel
    else:
      module = getattr(getattr(model, branch), layer)
      variable = module.bias if leaf == "bias" else module.kernel
    axes = {5: (2, 3, 4, 1, 0), 2: (1, 0), 1: (0,)}[value.ndim]
    assert variable.shape == value.transpose(axes).shape
    variable.set_value(jnp.asarray(value.transpose(axes)))
    loaded += value.size
  assert loaded == common.parameter_count(model) == 29_880_347
  return model


def pooled(x, window):
  """Max pooling with an odd rest, channels first."""
  rest = [(0, -size % step) for size, step in zip(x.shape[2:], window, strict=True)]
  x = np.pad(x, [(0, 0), (0, 0), *rest], constant_values=-np.inf)
  parts = [(size // step, step) for size, step in zip(x.shape[2:], window, strict=True)]
  x = x.reshape(*x.shape[:2], *parts[0], *parts[1], *parts[2])
  return x.max((3, 5, 7))


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["native", "folded"])
def test_activations_equal_the_golden_ones(lowering):
  model = golden_model()
  model.encoder.lowering = lowering
  for stage in model.encoder.stages:
    stage.conv.lowering = lowering
  graphdef, params, stats = common.split(model)
  run = jax.jit(lambda p, x: common.call(graphdef, p, stats, x, train=True)[0])
  ends, logits = run(params, golden_weights.clips(GOLDEN))
  reference = golden_weights.arrays(GOLDEN)

  def compare(actual, name):
    expected = reference[f"eval/{name}"]
    bound = 1e-4 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)

  for index, stage in enumerate(stages.STAGES, 1):
    value = np.moveaxis(np.asarray(ends[stage]), -1, 1)
    value = pooled(value, (1, 2, 2) if index == 1 else (2, 2, 2))
    assert value.shape == tuple(reference[f"stage/pool{index}/shape"])
    compare(
      value.ravel()[reference[f"stage/pool{index}/sample_index"]],
      f"pool{index}/sample",
    )
    compare(value.mean((0, 2, 3, 4)), f"pool{index}/channel_mean")
  compare(ends["pooled"], "embedding")
  for name in BRANCHES:
    for layer in ("fc6", "fc7"):
      value = np.asarray(ends[f"{name}_{layer}"]).ravel()
      key = f"{name}_{layer}"
      compare(value[reference[f"stage/{key}/sample_index"]], f"{key}/sample")
  compare(logits, "logits")


def test_every_endpoint_is_half_way_to_the_features():
  encoder, x = small(), video(1, 8, 56, 56)
  ends = jax.jit(lambda x: encoder.endpoints(x))(x)
  assert tuple(ends) == stages.ENDPOINTS
  assert ends["conv5"].shape == (1, 1, 4, 4, 16)
  for name in ("conv1", "conv4", "pooled"):
    rest = jax.jit(encoder.after, static_argnums=1)(ends[name], name)
    np.testing.assert_allclose(rest, ends["pooled"], atol=1e-5)
  with pytest.raises(ValueError, match="conv6"):
    encoder.until(x, "conv6")


def test_pooling_before_bias_and_relu_changes_no_number():
  graphdef, params, _ = common.split(small())
  params = jax.tree.map(lambda x: x + 0.02 if x.ndim == 1 else x, params)
  x = jnp.asarray(video(2, 4, 32, 32))

  @functools.partial(jax.jit, static_argnums=1)
  def gradients(params, pool_first):
    def loss(params):
      encoder = nnx.merge(graphdef, params)
      features = encoder(x) if pool_first else encoder.endpoints(x)["pooled"]
      return jnp.sum(features * jnp.sin(jnp.arange(features.shape[1])))

    return jax.value_and_grad(loss)(params)

  found, expected = gradients(params, True), gradients(params, False)
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected
  )


@pytest.mark.parametrize(
  "shape", [(4, 32, 32), (16, 112, 112), (8, 64, 80), (32, 96, 96)]
)
def test_clips_of_all_sizes_give_the_same_number_of_features(shape):
  encoder = small()
  features = jax.eval_shape(encoder, jnp.zeros((1, *shape, 3)))
  assert features.shape == (1, encoder.features) == (1, 256)


def test_a_larger_pool5_is_averaged_to_the_papers_cells():
  x = jnp.asarray(video(1, 2, 6, 2))
  found = c3d._resample(x)
  assert found.shape == (1, 1, 4, 4, 3)
  whole = x.mean(1)
  # Cells of 6 rows in 4 parts: 0-1, 1-2, 3-4, 4-5; of 2 columns: 0, 0, 1, 1.
  rows = [whole[:, a : a + 2].mean(1) for a in (0, 1, 3, 4)]
  expected = jnp.stack(rows, 1)[:, :, jnp.array([0, 0, 1, 1])]
  np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_rematerialisation_changes_no_gradient():
  x = video(1, 2, 16, 16)

  def gradient(remat):
    graphdef, params, stats = common.split(small(remat=remat))

    def loss(params):
      return common.call(graphdef, params, stats, x, train=True)[0].sum()

    return jax.jit(jax.grad(loss))(params)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    gradient(False),
    gradient(True),
  )


def test_stage_paths_name_every_convolution_once():
  encoder = small()
  state = nnx.to_flat_state(nnx.state(encoder))
  for path in encoder.stage_paths():
    inside = [key for key, _ in state if key[: len(path)] == path]
    assert len(inside) == 2
  assert len(encoder.stage_paths()) == 5


def test_activations_start_at_a_useful_size_for_every_width():
  x = video(1, 4, 48, 48)
  spreads = []
  for width in (4, 16):
    encoder = build_model("c3d", rngs=nnx.Rngs(0), width=width, lowering="native")
    spreads.append(float(jax.jit(lambda x, e=encoder: e(x))(x).std()))
  assert min(spreads) > 0.05
  assert max(spreads) < 20


def test_bfloat16_features_are_float32():
  encoder = small(dtype=jnp.bfloat16)
  assert jax.eval_shape(encoder, jnp.zeros((1, 4, 32, 32, 3))).dtype == jnp.float32


def test_the_classifier_of_c3d_has_three_layers_and_drops_in_training_only():
  encoder = small()
  head = build_classifier(encoder, 5, dropout=0.5, rngs=nnx.Rngs(0))
  features = jnp.ones((3, encoder.features))
  head.eval()
  one, other = head(features), head(features)
  np.testing.assert_array_equal(one, other)
  head.train()
  dropped = head(features, rngs=nnx.Rngs(dropout=1))
  assert float(jnp.abs(dropped - one).max()) > 0.01
  with pytest.raises(ValueError, match="dropout"):
    build_classifier(encoder, 5, dropout=1.0, rngs=nnx.Rngs(0))


def test_networks_are_found_by_name_in_both_families():
  resnet = nnx.eval_shape(lambda: build_model("r3d_18", rngs=nnx.Rngs(0)))
  head = build_classifier(resnet, 5, dropout=0.5, rngs=nnx.Rngs(0))
  assert isinstance(head, heads.Classifier)
  with pytest.raises(ValueError, match=r"r3d_18.*c3d"):
    build_model("c4d", rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match="winograd"):
    build_model("c3d", rngs=nnx.Rngs(0), lowering="winograd")
