"""Networks: parameter counts, golden numbers, endpoints, rematerialisation, modes."""

import functools

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from motion_jax.models import build_model, common, convert, heads
from motion_jax.models.stages import STAGES

GOLDEN = {
  "net_r2d3d18_mosi": ("r2d3d_18", "tada", STAGES),
  "net_r2p1d10_mosi": ("r2plus1d_10", "tada", STAGES),
  "net_r3d18": (
    "r3d_18",
    "torchvision",
    ("stem", "layer1", "layer2", "layer3", "layer4"),
  ),
  "net_slow_r50_c5": ("r3d_50", "slowfast", ("s1", "s2", "s3", "s4", "s5")),
  "net_motion_r50_w8": ("motion_r50", "slowfast", ("s1", "s2", "s3", "s4", "s5")),
}


@pytest.mark.parametrize(
  ("name", "backbone", "classes", "total"),
  [
    ("r2d3d_18", 14_057_536, 9, 14_059_849),
    ("r2d3d_18", 14_057_536, 51, 14_070_643),
    ("r2d3d_18", 14_057_536, 101, 14_083_493),
    ("r2d3d_18_dpc", 14_057_536, 9, 14_059_849),
    ("r2d3d_34", 32_422_208, 9, 32_424_521),
    ("r2plus1d_10", 14_365_477, 9, 14_370_094),
    ("r2plus1d_10", 14_365_477, 51, 14_391_640),
    ("r2plus1d_10", 14_365_477, 101, 14_417_290),
    ("r3d_18", 33_166_272, 400, 33_371_472),
    ("r2plus1d_18", 31_300_125, 400, 31_505_325),
    ("r3d_50", 31_672_128, 400, 31_672_128 + 819_600),
    ("slow_r50", 31_634_496, 400, 31_634_496 + 819_600),  # SlowFast's
    ("motion_r50", 374_152, 128, 374_152 + 32_896),
  ],
)
def test_parameter_counts_are_those_of_the_published_networks(
  name, backbone, classes, total
):
  encoder = nnx.eval_shape(lambda: build_model(name, rngs=nnx.Rngs(0)))
  head = heads.Classifier(encoder.features, classes, dropout=0.5, rngs=nnx.Rngs(0))
  assert common.parameter_count(encoder) == backbone
  assert backbone + common.parameter_count(head) == total


@pytest.mark.parametrize("name", ["r3d_50", "motion_r50"])
def test_bottlenecks_start_as_their_shortcuts(name):
  model = build_model(name, rngs=nnx.Rngs(0), width=4)
  for stage in model.stages:
    for block in stage:
      *inner, last = block.path.norms
      assert (last.scale[...] == 0).all()
      assert all((norm.scale[...] == 1).all() for norm in inner)
      if block.shortcut is not None:
        assert (block.shortcut.norms[0].scale[...] == 1).all()


def test_r3d_10_has_room_for_small_clips():
  model = nnx.eval_shape(lambda: build_model("r3d_10", rngs=nnx.Rngs(0), width=8))
  kernels = [conv.kernel.shape for path in model.paths() for conv in path.convs]
  assert kernels[0] == (3, 3, 3, 3, 8)  # sees motion, at all but full resolution
  assert len(kernels) == 12
  ends = nnx.eval_shape(
    lambda net, x: net.endpoints(x), model, jnp.ones((1, 8, 32, 32, 3))
  )
  shapes = [ends[name].shape[1:] for name in STAGES]
  assert shapes[0] == (8, 16, 16, 8)
  assert shapes[-1] == (1, 2, 2, 64)


@functools.cache
def _golden_model(name):
  """Encoder and classifier with golden weights, as (graphdef, params, stats)."""
  variant, layout, _ = GOLDEN[name]
  state = golden_weights.weights(name)
  encoder = nnx.eval_shape(lambda: build_model(variant, rngs=nnx.Rngs(0)))
  classes = len(golden_weights.arrays(name)["eval/logits"][0])
  head = heads.Classifier(encoder.features, classes, dropout=0.0, rngs=nnx.Rngs(0))
  encoder, report = convert.import_weights(common.split(encoder), state, layout)
  assert not report.missing
  head, rest = convert.import_weights(common.split(head), state, layout)
  assert not rest.missing
  assert len(report.loaded) + len(rest.loaded) == len(state)
  return encoder, head


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_weights_come_back_equal(name):
  state, layout = golden_weights.weights(name), GOLDEN[name][1]
  found = {}
  for part in _golden_model(name):
    found |= convert.export_weights(part, layout)
  assert found.keys() == state.keys()
  for key, value in found.items():
    np.testing.assert_array_equal(value, state[key], err_msg=key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _loss(encoder, head, train, params, stats, head_params, video, labels):
  ends, stats = common.call(
    encoder, params, stats, video, train=train, method="endpoints"
  )
  logits, _ = common.call(head, head_params, nnx.State({}), ends["pooled"], train=train)
  picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
  return -picked.mean(), (ends, logits, stats)


def _compare(actual, expected, tolerance):
  bound = tolerance * max(1.0, np.abs(expected).max())
  np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def _compare_stages(name, mode, ends, logits, tolerance):
  reference = golden_weights.arrays(name)
  for ours, theirs in zip(STAGES, GOLDEN[name][2], strict=True):
    value = np.moveaxis(np.asarray(ends[ours], np.float64), -1, 1)
    assert value.shape == tuple(reference[f"stage/{theirs}/shape"])
    flat = value.ravel()[reference[f"stage/{theirs}/sample_index"]]
    moments = [value.mean(), value.std(), np.abs(value).max()]
    prefix = f"{mode}/{theirs}"
    _compare(flat, reference[f"{prefix}/sample"], tolerance)
    _compare(moments, reference[f"{prefix}/moments"], tolerance)
    channel_mean = value.mean((0, 2, 3, 4))
    _compare(channel_mean, reference[f"{prefix}/channel_mean"], tolerance)
  _compare(ends["pooled"], reference[f"{mode}/embedding"], tolerance)
  _compare(logits, reference[f"{mode}/logits"], tolerance)


def _labels(name):
  labels = golden_weights.arrays(name).get("train/labels", np.zeros(2, int))
  return jnp.asarray(labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_evaluation_matches_the_golden_activations(name):
  (graphdef, params, stats), (head, head_params, _) = _golden_model(name)
  video = golden_weights.clips(name)
  _, (ends, logits, after) = _loss(
    graphdef, head, False, params, stats, head_params, video, _labels(name)
  )
  _compare_stages(name, "eval", ends, logits, 1e-4)
  reference = golden_weights.arrays(name)
  if "eval/probabilities" in reference:
    np.testing.assert_allclose(
      jax.nn.softmax(logits), reference["eval/probabilities"], rtol=0, atol=1e-4
    )
  jax.tree.map(np.testing.assert_array_equal, after, stats)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_training_matches_the_golden_activations_gradients_and_statistics(name):
  (graphdef, params, stats), (head, head_params, _) = _golden_model(name)
  video, labels = golden_weights.clips(name), _labels(name)
  arguments = (graphdef, head, True, params, stats, head_params, video, labels)
  if "train/loss" in golden_weights.arrays(name):
    grad = jax.value_and_grad(_loss, argnums=(3, 5), has_aux=True)
    grad = jax.jit(grad, static_argnums=(0, 1, 2))
    (loss, (ends, logits, after)), (grads, head_grads) = grad(*arguments)
  else:
    _, (ends, logits, after) = _loss(*arguments)
  _compare_stages(name, "train", ends, logits, 1e-3)
  layout = GOLDEN[name][1]
  reference = golden_weights.arrays(name)
  state = convert.export_weights((graphdef, params, after), layout)
  for key in [k for k in reference if k.startswith("train/after/")]:
    value = state[key.removeprefix("train/after/")]
    relative = {"rtol": 1e-3} if key.endswith("var") else {"rtol": 0, "atol": 1e-4}
    np.testing.assert_allclose(value, reference[key], **relative)
  if "train/loss" not in reference:
    return
  assert abs(loss - reference["train/loss"]) < 1e-4
  gradients = {
    **convert.export_weights((graphdef, grads, stats), layout),
    **convert.export_weights((head, head_grads, nnx.State({})), layout),
  }
  names = [k for k in reference if k.startswith("train/grad_norm/")]
  assert len(names) == len(jax.tree.leaves((params, head_params)))
  for key in names:
    value = gradients[key.removeprefix("train/grad_norm/")].astype(np.float64)
    norm = reference[key]
    np.testing.assert_allclose(np.linalg.norm(value), norm, rtol=5e-3, err_msg=key)
    index = reference[key.replace("grad_norm", "grad_index")]
    sample = reference[key.replace("grad_norm", "grad_sample")]
    bound = 0.1 * norm / np.sqrt(value.size)
    np.testing.assert_allclose(value.ravel()[index], sample, rtol=0, atol=bound)
