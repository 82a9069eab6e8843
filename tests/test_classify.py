"""Supervised training: frozen stages, augmentation, starting points, video accuracy."""

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from test_config import CONFIGS, load

from motion_jax import models
from motion_jax.config import UserError
from motion_jax.methods import make_method
from motion_jax.scale import sharding
from motion_jax.training import state


@pytest.fixture(autouse=True)
def short_network(monkeypatch):
  tiny.shorten_network(monkeypatch.setitem, blocks=(1, 1, 1, 1))


def smoke(**method):
  config = load(CONFIGS / "finetune.py").get_config("smoke")
  config.method.update({"classes": 3, "dropout": 0.0, **method})
  return config


def batch(rows=6, seed=0):
  """Clips whose class is their colour."""
  rng = np.random.default_rng(seed)
  label = np.arange(rows, dtype=np.int32) % 3
  video = rng.integers(0, 90, (rows, 4, 40, 72, 3), np.uint8)
  video[np.arange(rows), ..., label] += 120
  return {
    "video": video,
    "extent": np.full((rows, 2), (40, 60), np.int32),
    "valid": np.ones(rows, bool),
    "index": np.arange(rows, dtype=np.int32),
    "label": label,
  }


def train(config, steps):
  """Trains on one batch; returns (first state, last state, losses, method)."""
  import optax

  method, mesh = make_method(config), sharding.make_mesh()
  optimizer = optax.adam(3e-3)
  first = state.create(method, optimizer, jax.random.key(0), mesh)
  start = jax.device_get((first.params, first.aux))
  step = state.make_train_step(method, optimizer, jax.random.key(1), mesh)
  now, losses, rows = first, [], sharding.shard_batch(mesh, batch())
  for _ in range(steps):
    now, loss = step(now, rows)
    losses.append(float(loss))
  return start, jax.device_get((now.params, now.aux)), losses, method


def changed(before, after):
  """Top-level places in a tree whose arrays differ."""
  leaves = jax.tree_util.tree_leaves_with_path(before)
  others = jax.tree.leaves(after)
  return {
    jax.tree_util.keystr(path)
    for (path, a), b in zip(leaves, others, strict=True)
    if not np.array_equal(a, b)
  }


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [2, 5])
def test_frozen_stages_keep_weights_and_statistics(frozen):
  start, end, losses, _ = train(smoke(frozen_stages=frozen), 4)
  moved = changed(start, end)
  places = ["['stem']", *(f"['stages'][{stage}]" for stage in range(4))]
  for number, place in enumerate(places):
    names = [name for name in moved if f"['encoder']{place}" in name]
    assert bool(names) == (number >= frozen), (place, names)
  assert any("['head']" in name for name in moved)
  assert np.isfinite(losses).all()


@pytest.mark.slow
def test_a_classifier_fits_a_few_clips():
  config = smoke(grayscale=0.0, saturation=0.0, hue=0.0)
  _, (params, aux), losses, method = train(config, 40)
  assert losses[-1] < 0.3 * losses[0]
  outputs = jax.jit(method.predict)(params, aux, batch(seed=1))
  assert outputs["probabilities"].shape == (6, 3)
  np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1, atol=1e-5)


def test_three_crops_are_averaged_after_the_softmax():
  config = smoke()
  config.eval.crops, config.eval.crop_ratio, config.eval.size = 3, 1.0, 40
  method = make_method(config)
  params, aux = jax.jit(method.init)(jax.random.key(0))
  rows = batch(2)
  outputs = jax.jit(method.predict)(params, aux, rows)
  graphdef, weights = nnx.split(method.encoder(params, aux))
  encode = jax.jit(lambda video: nnx.merge(graphdef, weights)(video))
  means = []
  for left in (0, 10, 20):
    video = (rows["video"][..., left : left + 40, :] / 255.0 - 0.45) / 0.225
    features = encode(video.astype(np.float32))
    kernel, bias = params["head"]["kernel"], params["head"]["bias"]
    means.append(jax.nn.softmax(features @ kernel + bias))
  np.testing.assert_allclose(outputs["probabilities"], sum(means) / 3, atol=1e-4)


class Blocks(nnx.Module):
  """In place of an encoder: means over blocks of 8x8 pixels, without weights."""

  features = 3

  def until(self, video, name):
    assert name == "conv5"
    frames, height, width = video.shape[1:4]
    return video.reshape(-1, frames, height // 8, 8, width // 8, 8, 3).mean((3, 5))

  def __call__(self, video):
    return self.until(video, "conv5").mean((1, 2, 3))

  def stage_paths(self):
    return []


@pytest.mark.parametrize("place_scores", [True, False])
def test_a_softmax_at_every_place_of_every_crop_is_averaged(monkeypatch, place_scores):
  """SlowFast's test: trained on 32 pixels, 4x4 blocks, tested on 48, 3x3 places."""
  monkeypatch.setattr(models, "build_model", lambda *_, **__: Blocks())
  config = smoke()
  config.data.canvas = (48, 96)
  config.eval.update(crops=3, crop_ratio=1.0, size=48, place_scores=place_scores)
  config.data.short_side = 48
  method = make_method(config)
  params, aux = method.init(jax.random.key(0))
  kernel, bias = 4 * params["head"]["kernel"], params["head"]["bias"]
  params["head"]["kernel"] = kernel
  rng = np.random.default_rng(0)
  rows = batch(2) | {"video": rng.integers(0, 256, (2, 4, 48, 96, 3), np.uint8)}
  rows["video"][:, :, :20, ::2] //= 4  # or all places are alike
  rows["extent"] = np.full((2, 2), (48, 96), np.int32)
  found = method.predict(params, aux, rows)["probabilities"]

  def softmax(features):
    scores = np.exp(features @ np.asarray(kernel) + np.asarray(bias))
    return scores / scores.sum(-1, keepdims=True)

  expected = []
  for left in (0, 24, 48):
    crop = (rows["video"][..., left : left + 48, :] / 255 - 0.45) / 0.225
    blocks = crop.reshape(2, 4, 6, 8, 6, 8, 3).mean((1, 3, 5))
    if not place_scores:
      expected.append(softmax(blocks.mean((1, 2))))
    else:
      expected += [
        softmax(blocks[:, top : top + 4, side : side + 4].mean((1, 2)))
        for top in range(3)
        for side in range(3)
      ]
  np.testing.assert_allclose(found, np.mean(expected, 0), atol=1e-5)


def test_c3d_has_no_places():
  config = smoke()
  config.model.name = "c3d"
  config.eval.place_scores = True
  make_method(config)  # crops are no larger than in training
  config.eval.size = 48
  with pytest.raises(UserError, match=r"eval\.place_scores"):
    make_method(config)


@pytest.mark.parametrize("word", ["synthetic_actions", "folder", "smoke"])
@pytest.mark.parametrize("recipe", ["", ",recipe=modist", ",recipe=mas"])
@pytest.mark.parametrize("frozen", ["", ",linear"])
def test_small_recipes_are_small_whatever_is_tested(word, recipe, frozen):
  config = load(CONFIGS / "finetune.py").get_config(word + recipe + frozen)
  assert config.optim.name == "adam" and config.optim.learning_rate < 0.02
  assert config.train.duration == ("3 steps" if word == "smoke" else "8 epochs")
  assert (config.data.interval, config.data.fps) == (4, 30.0)
  ours = "r2d3d_18" if word == "smoke" else "r3d_10"  # of a paper, if one is named
  papers = {",recipe=modist": "r3d_50", ",recipe=mas": "c3d"}
  assert config.model.name == papers.get(recipe, ours)


@pytest.mark.parametrize(
  ("arg", "values"),
  [
    ("hmdb51", {"optim.learning_rate": 2e-3, "train.batch_size": 1024}),
    ("ucf101", {"optim.learning_rate": 4e-3, "optim.warmup_start": 4e-4}),
    ("ucf101,scratch", {"optim.learning_rate": 2e-3, "init_from": "scratch"}),
    ("ucf101,network=r2plus1d_10", {"optim.learning_rate": 1.5e-3}),
    ("hmdb51,network=r2plus1d_10", {"train.batch_size": 384}),
    ("ucf101,recipe=modist", {"method.frames": 32, "eval.crops": 3, "eval.size": 256}),
    ("ucf101,recipe=modist", {"eval.place_scores": True}),
    ("ucf101", {"eval.place_scores": False}),
    ("ucf101,recipe=modist,linear", {"optim.learning_rate": 0.5, "method.dropout": 0}),
    ("hmdb51,recipe=mas", {"eval.clips": 0, "data.fps": 0, "method.head_decay": 0.005}),
    ("ucf101,recipe=mas", {"model.name": "c3d", "train.batch_size": 30}),
  ],
)
def test_the_papers_recipes_hold_their_numbers(arg, values):
  config = load(CONFIGS / "finetune.py").get_config(arg)
  for name, value in values.items():
    found = config
    for part in name.split("."):
      found = found[part]
    assert found == value, name
  config.method.classes = 101
  make_method(config)


def test_the_linear_probe_of_c3d_is_linear():
  config = smoke(frozen_stages=5)
  config.model.name = "c3d"
  method = make_method(config)
  params, _ = jax.eval_shape(method.init, jax.random.key(0))
  assert len(jax.tree.leaves(params)) == 2


def test_clips_are_augmented_alike_in_all_frames_and_labels_follow():
  method = make_method(smoke())
  still = batch()
  still["video"] = np.repeat(still["video"][:, :1], 4, axis=1)
  clips, labels = jax.jit(method.pretext)(still, jax.random.key(3), 0)
  assert clips.shape == (6, 4, 32, 32, 3)
  np.testing.assert_allclose(clips, np.repeat(clips[:, :1], 4, axis=1), atol=1e-6)
  assert labels.tolist() == still["label"].tolist()
  other, _ = jax.jit(method.pretext)(still, jax.random.key(4), 0)
  assert not np.allclose(clips, other)


def test_rows_that_are_not_valid_change_nothing():
  method = make_method(smoke(frozen_stages=5))  # no batch statistics
  params, aux = jax.jit(method.init)(jax.random.key(0))
  rows = batch()
  rows["valid"][2:] = False
  loss = jax.jit(method.loss)(params, aux, rows, jax.random.key(0), 0)[0]
  rows["video"][2:] = 0
  rows["label"][2:] = -1
  same = jax.jit(method.loss)(params, aux, rows, jax.random.key(0), 0)[0]
  assert float(loss) == pytest.approx(float(same), abs=1e-6)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(frozen_stages=6), "frozen_stages"),
    (dict(crop="center"), "resized"),
    (dict(classes=1), "at least two"),
    (dict(area=(0.5, 1.5)), "area"),
    (dict(hue=0.7), "hue"),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(UserError, match=message):
    make_method(smoke(**settings))
