"""Grad-CAM equals the reference; attention; maps at every stage."""

import functools

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import GOLDEN, _check, _entry, _stream, fixture

from motion_jax import build_model
from motion_jax.evaluation.measures import gradcam
from motion_jax.models.conv import conv3d
from motion_jax.models.stages import STAGES


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDEN / "evaluation.npz") as stored:
    return dict(stored)


class Network:
  """The reference's two convolutions and linear layer; conv2 is called conv5."""

  def __init__(self):
    info = fixture("evaluation")["gradcam"]
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in info["state"]}
    state = {}
    for entry in info["state"]:
      state[entry["name"]] = value = _entry(info, entry["name"], shapes)
      _check(entry, value)
    self.state = state
    stream = _stream(info, info["input"]["name"])
    video = stream.standard_normal(info["input"]["shape"]).astype(np.float32)
    self.video = jnp.asarray(np.moveaxis(video, 1, -1))

  def until(self, video, name):
    x = self._layer(video, "conv1", (1, 2, 2))
    return self._layer(x, "conv2", (2, 2, 2))

  def after(self, activation, name):
    return activation.mean((1, 2, 3))

  def head(self, features):
    return features @ self.state["fc.weight"].T + self.state["fc.bias"]

  def _layer(self, x, name, strides):
    kernel = jnp.transpose(self.state[f"{name}.weight"], (2, 3, 4, 1, 0))
    x = conv3d(x, kernel, strides=strides, padding=(1, 1, 1), lowering="native")
    return nnx.relu(x + self.state[f"{name}.bias"])


@pytest.fixture(scope="module")
def network():
  return Network()


def _agrees(raw, golden, key):
  found = np.asarray(raw)
  np.testing.assert_allclose(found, golden[f"{key}/raw"], atol=1e-5)
  upsampled = gradcam.upsample(raw, (8, 24, 20))
  np.testing.assert_allclose(upsampled, golden[f"{key}/upsampled"], atol=1e-5)
  normalised = gradcam.normalize(upsampled)
  np.testing.assert_allclose(normalised, golden[f"{key}/normalised"], atol=1e-4)


def test_maps_of_predicted_classes_equal_the_reference(network, golden):
  maps, found = gradcam.class_maps(network, [network.head], network.video)
  _agrees(maps, golden, "gradcam/logit_predicted/per_frame")
  expected = golden["gradcam/logits"].argmax(1)
  np.testing.assert_array_equal(found[:, 0], expected)


@pytest.mark.parametrize("weights", ["per_frame", "global"])
@pytest.mark.parametrize("score", ["logit_label", "softmax_predicted"])
def test_maps_of_another_score_equal_the_reference(network, golden, score, weights):
  def scores(activation):
    logits = network.head(network.after(activation, "conv5"))
    if score == "softmax_predicted":
      return jax.nn.softmax(logits).max(-1)
    return logits[jnp.arange(len(logits)), golden["gradcam/labels"]]

  activation = network.until(network.video, "conv5")
  maps = gradcam.gradcam(scores, activation, per_frame=weights == "per_frame")
  _agrees(maps, golden, f"gradcam/{score}/{weights}")


def test_upsampling_equals_the_reference(golden):
  found = gradcam.upsample(jnp.asarray(golden["upsample/input"][0]), (8, 12, 15))
  np.testing.assert_allclose(found, golden["upsample/output_8_12_15"][0], atol=1e-5)


def test_heads_of_two_axes_are_explained_together(network):
  both, labels = gradcam.class_maps(
    network, [network.head, lambda x: -network.head(x)], network.video
  )
  assert labels.shape == (2, 2) and (labels[:, 0] != labels[:, 1]).all()
  # The logits -l of the second head want the opposite of the first one's class.
  activation = network.until(network.video, "conv5")

  def score(activation):
    logits = network.head(network.after(activation, "conv5"))
    rows = jnp.arange(2)
    return logits[rows, labels[:, 0]] - logits[rows, labels[:, 1]]

  np.testing.assert_allclose(both, gradcam.gradcam(score, activation), atol=1e-6)


def test_motion_is_explained_against_the_class_that_stands_still(network):
  activation = network.until(network.video, "conv5")
  heads = [network.head, lambda x: 2 * network.head(x)]
  still = (1, 0)
  found, _ = gradcam.class_maps(network, heads, network.video, still=still)

  def score(activation):  # log of P(moves) / P(stands still), a head after the other
    features = network.after(activation, "conv5")
    shares = [jax.nn.softmax(head(features)) for head in heads]
    rest = [part[:, label] for part, label in zip(shares, still, strict=True)]
    return sum(jnp.log((1 - each) / each) for each in rest)

  np.testing.assert_allclose(found, gradcam.gradcam(score, activation), atol=1e-5)
  other, _ = gradcam.class_maps(network, heads, network.video)
  assert not np.allclose(found, other, atol=1e-3)


@pytest.mark.parametrize("name", ["r2d3d_18", "c3d"])
def test_every_stage_of_a_network_has_maps_of_its_own_size(name):
  encoder = nnx.eval_shape(lambda: build_model(name, rngs=nnx.Rngs(0), width=4))
  encoder.eval()
  graphdef, arrays = nnx.split(encoder)
  weights = jax.ShapeDtypeStruct((encoder.features, 3), jnp.float32)
  video = jax.ShapeDtypeStruct((2, 8, 32, 32, 3), jnp.float32)

  def maps_and_stage(arrays, weights, video, stage):
    network = nnx.merge(graphdef, arrays)
    heads = [lambda features: features @ weights]
    maps, labels = gradcam.class_maps(network, heads, video, stage=stage)
    return maps, labels, network.until(video, stage)

  for stage in STAGES:
    look = functools.partial(maps_and_stage, stage=stage)
    maps, labels, activation = jax.eval_shape(look, arrays, weights, video)
    assert maps.shape == activation.shape[:-1]
    assert labels.shape == (2, 1)


def test_a_clip_has_the_same_map_whatever_else_is_in_the_batch(network):
  whole, _ = gradcam.class_maps(network, [network.head], network.video)
  alone, _ = gradcam.class_maps(network, [network.head], network.video[1:])
  np.testing.assert_allclose(whole[1:], alone, atol=1e-6)


def test_attention_is_the_energy_of_the_channels(network):
  activation = np.asarray(network.until(network.video, "conv5"))
  energy = (activation**2).sum(-1)
  clip = gradcam.attention_maps(network, network.video)
  np.testing.assert_allclose(clip, energy.mean(1, keepdims=True), rtol=1e-5)
  assert gradcam.upsample(clip, (8, 24, 20)).shape == (2, 8, 24, 20)
