"""The MoSI method: batches, heads, curriculum, learning."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_config import CONFIGS, load

from motion_jax import models
from motion_jax.config import UserError
from motion_jax.methods import make_method
from motion_jax.scale import sharding
from motion_jax.training import state
from motion_jax.visualize import clips as clip_figures


def smoke(**method):
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.method.update(method)
  return config


def batch(rows=4, side=64, seed=0):
  """Pictures with blobs of all colours, as a sampler would deliver them."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (rows, 16, 16, 3), np.uint8)
  pictures = [cv2.resize(picture, (side, side)) for picture in coarse]
  return {
    "image": np.stack(pictures),
    "extent": np.full((rows, 2), side, np.int32),
    "valid": np.ones(rows, bool),
    "index": np.arange(rows, dtype=np.int32),
    "label": np.zeros(rows, np.int32),
  }


def test_the_clips_of_a_source_follow_one_another():
  method = make_method(smoke())
  clips, labels = jax.jit(method.pretext)(batch(2), jax.random.key(0), 0)
  assert clips.shape == (18, 4, 32, 32, 3)
  assert labels[:, 0].tolist() == [*range(9)] * 2
  first, _ = jax.jit(method.pretext)(batch(1), jax.random.key(0), 0)
  np.testing.assert_array_equal(clips[:9], first)


@pytest.mark.parametrize(
  ("settings", "classes", "still"),
  [
    (dict(speeds=1), [5], (4,)),
    (dict(speeds=4), [17], (16,)),
    (dict(axes="x"), [5], (4,)),
    (dict(static=False), [8], None),
    (dict(decoupled=False), [25], (12,)),
    (dict(labels="separate"), [5, 5], (2, 2)),
    (dict(labels="separate", axes="y"), [5, 5], (2, 2)),
  ],
)
def test_heads_have_one_class_per_motion(settings, classes, still):
  method = make_method(smoke(**settings))
  assert method.still == still
  params, _ = jax.eval_shape(method.init, jax.random.key(0))
  sizes = [head["bias"].shape[0] for _, head in sorted(params["heads"].items())]
  assert sizes == classes
  labels = jax.eval_shape(method.pretext, batch(1), jax.random.key(0), 0)[1]
  assert labels.shape == (method.clips_per_example, len(classes))


def test_rows_that_are_not_valid_count_in_no_metric():
  method = make_method(smoke())
  params, aux = jax.jit(method.init)(jax.random.key(0))
  rows = batch()
  rows["valid"][2:] = False
  outputs = jax.jit(method.predict)(params, aux, rows)
  assert outputs["mask"].tolist() == [True] * 18 + [False] * 18
  whole = method.metrics.single_from_model_output(**outputs).compute()
  np.testing.assert_allclose(whole["loss"], outputs["loss"][:18].mean(), rtol=1e-6)


def test_prediction_repeats_itself():
  method = make_method(smoke())
  params, aux = jax.jit(method.init)(jax.random.key(0))
  predict = jax.jit(method.predict)
  one, other = predict(params, aux, batch()), predict(params, aux, batch())
  np.testing.assert_array_equal(one["loss"], other["loss"])


def changed_share(clips):
  """Share of pixels that differ between the first two frames, per clip."""
  return (jnp.abs(clips[:, 1] - clips[:, 0]).max(-1) > 1e-6).mean((1, 2))


def test_the_curriculum_starts_unmasked_and_ends_at_the_papers_mask():
  method = make_method(smoke(curriculum_steps=100, brightness=0.0, hue=0.0))
  pretext = jax.jit(method.pretext)
  shares = {}
  for step in (0, 50, 100, 1000):
    clips, _ = pretext(batch(8), jax.random.key(1), step)
    moving = clips.reshape(8, 9, *clips.shape[1:])[:, :8].reshape(-1, *clips.shape[1:])
    shares[step] = float(changed_share(moving).max())
  assert shares[0] > 0.9
  assert shares[50] < 0.75**2 + 0.1
  assert shares[100] <= 0.25 + 1e-6  # boxes of at most half the side
  assert shares[1000] == shares[100]


def test_no_curriculum_is_the_papers_setting_from_the_start():
  paper = make_method(smoke(curriculum_steps=0))
  ours = make_method(smoke(curriculum_steps=100))
  one, _ = jax.jit(paper.pretext)(batch(2), jax.random.key(1), 0)
  other, _ = jax.jit(ours.pretext)(batch(2), jax.random.key(1), 100)
  np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_crop_without_room_is_refused():
  config = smoke()
  config.data.short_side = 32
  with pytest.raises(UserError, match="no room"):
    make_method(config)


def test_the_encoder_maps_clips_to_features():
  method = make_method(smoke())
  encoder = method.encoder(*method.init(jax.random.key(0)))
  features = jax.eval_shape(encoder, jnp.zeros((2, 4, 32, 32, 3)))
  assert features.shape == (2, encoder.features)


def steps(count, rows=4, settings=None):
  config = smoke(**(settings or {}))
  method, mesh, key = make_method(config), sharding.make_mesh(), jax.random.key(0)
  optimizer = optax.adam(2e-3)
  current = state.create(method, optimizer, key, mesh)
  step = state.make_train_step(method, optimizer, key, mesh)
  losses = []
  for _ in range(count):
    current, loss = step(current, sharding.shard_batch(mesh, batch(rows)))
    losses.append(float(loss))
  return losses


@pytest.mark.slow
@pytest.mark.long
def test_eight_sources_are_overfitted():
  easy = dict(mask_ratio=(1.0, 1.0), brightness=0.0, contrast=0.0, dropout=0.0)
  losses = steps(150, rows=8, settings=easy)
  assert losses[0] > 1.8
  assert min(losses[-10:]) < 0.5 * losses[0]


@pytest.mark.parametrize("labels", ["joint", "separate"])
def test_predictions_stand_beside_the_true_motion(labels, monkeypatch, tmp_path):
  monkeypatch.setattr(models, "build_model", tiny.build_model)
  shown = {}
  monkeypatch.setattr(
    clip_figures, "save_clip_grid", lambda path, clips, **more: shown.update(more)
  )
  method = make_method(smoke(labels=labels))
  params, aux = method.init(jax.random.key(0))
  heads = params["heads"]
  for head in heads:  # the network answers the last class of each head, always
    heads[head]["kernel"] *= 0
    heads[head]["bias"] = heads[head]["bias"].at[-1].set(1.0)
  method.save_results(tmp_path, params, aux, batch(2))
  true, found = zip(
    *(title.split("\nfound: ") for title in shown["titles"]), strict=True
  )
  assert len({*true}) == method.clips_per_example
  last = true[-1] if labels == "joint" else "none of these"  # (2, 2) is no label
  assert {*found} == {last}
