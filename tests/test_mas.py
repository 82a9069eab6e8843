"""The MAS method: labels of batches, ablations, refusals, devices, learning."""

import functools
import json
import pathlib
import subprocess
import sys

import children
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
from motion_jax.data import motion_codec
from motion_jax.methods import make_method
from motion_jax.scale import sharding
from motion_jax.training import state


def smoke(**method):
  config = load(CONFIGS / "mas.py").get_config("smoke")
  config.method.update(method)
  config.model.lowering = "native"  # compiles faster
  return config


@functools.cache
def smoke_method():
  """The smoke recipe's method; compiling its functions takes seconds: do it once."""
  return make_method(smoke())


@functools.cache
def compiled(name):
  return jax.jit(getattr(smoke_method(), name))


@functools.cache
def initial():
  return compiled("init")(jax.random.key(0))


def batch(rows=8, seed=0):
  """Textures with a square that moves to the right, as a sampler would deliver them."""
  rng = np.random.default_rng(seed)
  video = np.zeros((rows, 4, 37, 49, 3), np.uint8)
  for clip in video:
    ground, piece = (
      cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), size)
      for size in ((49, 37), (14, 14))
    )
    top, left = rng.integers(2, 20, 2)
    for t, frame in enumerate(clip):
      frame[:] = ground
      frame[top : top + 14, left + 2 * t : left + 2 * t + 14] = piece
  return {
    "video": video,
    "extent": np.tile(np.int32([37, 49]), (rows, 1)),
    "valid": np.ones(rows, bool),
    "index": np.arange(rows, dtype=np.int32),
    "label": np.zeros(rows, np.int32),
  }


def test_a_network_gets_clips_and_all_27_labels():
  shapes = jax.eval_shape(smoke_method().pretext, batch(2), jax.random.key(0), 0)
  assert [x.shape for x in shapes] == [(2, 4, 32, 32, 3), (2, 27)]


@pytest.mark.slow
def test_labels_are_within_their_ranges():
  outputs = compiled("predict")(*initial(), batch())
  highest = jnp.array([label.classes for label in smoke_method().scores.labels])
  assert ((outputs["labels"] >= 1) & (outputs["labels"] <= highest)).all()


@pytest.mark.slow
def test_the_moving_square_is_where_the_motion_labels_say():
  method = smoke_method()
  rows = batch()
  # Central crops, as in evaluation; columns 8 to 39 and rows 2 to 33 of the canvas.
  labels = np.asarray(compiled("predict")(*initial(), rows)["labels"])
  video = rows["video"][:, :, 2:34, 8:40].astype(float)
  moved = np.abs(np.diff(video, axis=1)).mean((1, 4))
  blocks = moved.reshape(8, 4, 8, 4, 8).mean((2, 4)).reshape(8, 16)
  rank = (-blocks).argsort(1).argsort(1)
  for side, column in (("u", 0), ("v", 2)):
    label = method.scores.labels[column]
    assert label[:4] == ("motion", "location", "grid", side)
    chosen = rank[np.arange(8), labels[:, column] - 1]
    assert (chosen < 6).all()


@pytest.mark.slow
def test_the_last_frame_that_a_short_video_repeats_is_never_the_strongest():
  rows = batch()
  rows["video"][:, 2:] = rows["video"][:, 1:2]
  labels = np.asarray(compiled("predict")(*initial(), rows)["labels"])
  frames = [i for i, x in enumerate(smoke_method().scores.labels) if x.kind == "frame"]
  assert (labels[:, frames] == 1).all()


@pytest.mark.slow
def test_flow_reaches_to_the_end_of_the_video_not_of_the_canvas():
  rng = np.random.default_rng(0)
  wide = cv2.resize(rng.uniform(0, 255, (18, 30, 3)), (60, 37)).astype(np.uint8)
  video = np.zeros((1, 4, 37, 49, 3), np.uint8)
  for t in range(4):
    video[0, t, :, :40] = wide[:, 2 * t : 2 * t + 40]
  flow = jax.jit(smoke_method().flow)(video, np.int32([[37, 40]]))
  np.testing.assert_allclose(flow[0, :, 4:-4, 4:36, 0].mean(), -2, atol=0.3)
  np.testing.assert_allclose(flow[0, :, 4:-4, 36:40, 0].mean(), -2, atol=0.6)


def with_flow(extent):
  """Rows whose pixels and stored flow both tell their row and column."""
  place = np.stack(np.mgrid[:37, :49], -1).astype(np.uint8) + 100
  video = np.broadcast_to(place[..., [0, 1, 1]], (8, 4, 37, 49, 3))
  flow = np.broadcast_to(place, (8, 3, 37, 49, 2))
  return batch() | dict(
    video=video, flow=flow, extent=np.tile(np.int32([extent]), (8, 1))
  )


def test_crops_of_clips_and_of_their_flow_are_the_same():
  crop = jax.jit(make_method(smoke(flip=0.0)).crop)
  video, flow = crop(with_flow((37, 49)), jax.random.key(0))
  # Clips see the flow from frame to frame, stored is that back to the one before.
  stored = np.rint(128 - np.asarray(flow) * 127 / motion_codec.LIMITS["flow"])
  np.testing.assert_array_equal(stored, video[:, 1:, ..., :2])
  assert len(np.unique(np.asarray(video)[:, 0, 0, 0], axis=0)) > 4


@pytest.mark.slow
def test_a_mirrored_clip_and_its_labels_are_those_of_the_mirrored_video():
  rng = np.random.default_rng(0)
  rows = batch() | dict(extent=np.tile(np.int32([32, 32]), (8, 1)))
  rows["flow"] = rng.integers(90, 167, (8, 3, 37, 49, 2)).astype(np.uint8)
  mirrored = rows | dict(video=rows["video"].copy(), flow=rows["flow"].copy())
  mirrored["video"][:, :, :, :32] = rows["video"][:, :, :, 31::-1]
  mirrored["flow"][:, :, :, :32] = rows["flow"][:, :, :, 31::-1]
  mirrored["flow"][..., 0] = 256 - mirrored["flow"][..., 0].astype(int)  # u
  make = jax.jit(make_method(smoke(flip=1.0)).inputs)
  found, expected = make(rows, jax.random.key(0)), make(mirrored, None)
  np.testing.assert_array_equal(found[0], expected[0])
  np.testing.assert_array_equal(found[1], expected[1])


def test_the_papers_network_has_its_number_of_parameters():
  config = load(CONFIGS / "mas.py").get_config("ucf101")
  params, _ = jax.eval_shape(make_method(config).init, jax.random.key(0))
  assert sum(x.size for x in jax.tree.leaves(params)) == 29_880_347


@pytest.mark.parametrize(
  ("settings", "branches", "count"),
  [
    (dict(appearance=False), ["motion"], 14),  # table 3
    (dict(motion=False), ["appearance"], 13),
    (dict(patterns=("rings",), global_labels=False), ["motion", "appearance"], 8),
    (dict(local_labels=False), ["motion", "appearance"], 3),  # table 2
    (dict(appearance=False, patterns=("grid",)), ["motion"], 6),
  ],
)
def test_ablations_learn_their_labels_only(settings, branches, count):
  method = make_method(smoke(**settings))
  assert method.scores.branches == branches
  params, _ = jax.eval_shape(method.init, jax.random.key(0))
  outputs = [head["out"]["bias"].shape[0] for head in params["heads"].values()]
  assert sum(outputs) == count
  labels = jax.eval_shape(method.pretext, batch(1), jax.random.key(0), 0)[1]
  assert labels.shape == (1, count)


@pytest.mark.slow
def test_a_clip_without_motion_is_counted_and_has_label_1():
  method = smoke_method()
  rows = batch()
  rows["video"][:2] = rows["video"][:2, :1]
  rows["valid"][1] = False
  key = jax.random.key(0)
  _, (_, outputs) = compiled("loss")(*initial(), rows, key, 0)
  assert outputs["still"].tolist() == [1, 1, *[0] * 6]
  assert (outputs["labels"][:2, :14] == 1).all()
  whole = method.metrics.single_from_model_output(**outputs).compute()
  assert float(whole["still_share"]) == pytest.approx(1 / 7)
  np.testing.assert_allclose(
    whole["loss"], outputs["loss"][np.array([0, *range(2, 8)])].mean(), rtol=1e-5
  )


@pytest.mark.slow
def test_prediction_repeats_itself():
  predict = compiled("predict")
  one, other = predict(*initial(), batch()), predict(*initial(), batch())
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_only_the_heads_weights_are_decayed():
  # Without labels or flow: the loss minus that of no decay is the decay alone.
  params, aux = initial()
  losses = []
  for decay in (0.0, 0.1):
    method = make_method(smoke(head_decay=decay))
    method.inputs = lambda batch, key: (
      batch["video"][:, :, :32, :32].astype(jnp.float32) / 255,
      jnp.ones((8, 27), jnp.int32),
      jnp.zeros(8, bool),
    )
    loss = jax.jit(lambda p, m=method: m.loss(p, aux, batch(), None, 0)[0])
    losses.append(float(loss(params)))
  kernels = [
    head[layer]["kernel"]
    for head in params["heads"].values()
    for layer in ("fc6", "fc7", "out")
  ]
  expected = 0.05 * sum(float(jnp.vdot(x, x)) for x in kernels)
  assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("network", ["r2d3d_18", "r2plus1d_10"])
def test_any_3d_resnet_can_learn_it(network):
  config = smoke(hidden=0)
  config.model.name = network
  method = make_method(config)
  params, aux = jax.eval_shape(method.init, jax.random.key(0))
  outputs = jax.eval_shape(method.predict, params, aux, batch(2))
  assert outputs["loss"].shape == (2,)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(patterns=("circles",)), "circles"),
    (dict(motion=False, appearance=False), "nothing to learn"),
    (dict(patterns=(), global_labels=False), "nothing to learn"),
    (dict(size=48), "does not fit"),
    (dict(size=30), "multiple of 16"),
    (dict(voting="mean"), "voting"),
    (dict(colour="mean"), "colour"),
    (dict(objective="ranking"), "objective"),
    (dict(frames=1), "2 method.frames"),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(UserError, match=message):
    make_method(smoke(**settings))


@pytest.fixture
def quick_method(monkeypatch):
  """Of a small network and little flow: its functions compile sooner."""
  monkeypatch.setattr(models, "build_model", tiny.build_model)
  return make_method(smoke(flow_warps=1, flow_iterations=2, flow_level=1))


@pytest.mark.slow
def test_figures_show_the_labels(quick_method, tmp_path):
  quick_method.save_figures(tmp_path / "figures", batch(2), jax.random.key(0))
  picture = cv2.imread(str(tmp_path / "figures" / "pretext.png"))
  assert min(picture.shape[:2]) > 200
  assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500
  assert (tmp_path / "figures" / "pretext.gif").stat().st_size > 1000


@pytest.mark.slow
def test_predictions_are_drawn_beside_the_labels(quick_method, tmp_path):
  weights = jax.jit(quick_method.init)(jax.random.key(0))
  quick_method.save_results(tmp_path, *weights, batch(4))
  picture = cv2.imread(str(tmp_path / "predictions.png"))
  quick_method.save_figures(tmp_path, batch(4), None)
  assert not np.array_equal(picture, cv2.imread(str(tmp_path / "pretext.png")))


def test_the_sweep_has_the_rows_of_tables_1_to_3():
  file = load(CONFIGS / "mas.py")
  rows = list(file.sweep())
  assert len(rows) == 9
  for word, overrides in rows:
    config = file.get_config(word)
    config.update_from_flattened_dict(overrides)
    make_method(config)


def steps(count, **settings):
  method = make_method(smoke(flip=0.0, **settings))
  mesh, key = sharding.make_mesh(), jax.random.key(0)
  optimizer = optax.adam(2e-3)
  current = state.create(method, optimizer, key, mesh)
  step = state.make_train_step(method, optimizer, key, mesh)
  losses = []
  for _ in range(count):
    current, loss = step(current, sharding.shard_batch(mesh, batch()))
    losses.append(float(loss))
  return losses


@pytest.mark.slow
@pytest.mark.long
def test_eight_clips_are_learned():
  losses = steps(60)
  assert min(losses[-10:]) < 0.8 * np.mean(losses[:2])


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
import test_mas, tiny
from motion_jax import models
models.build_model = tiny.build_model
print(json.dumps(test_mas.steps(2)))
"""


@pytest.mark.slow
@pytest.mark.long
def test_one_and_four_devices_agree():
  results = []
  for devices in (1, 4):
    script = SCRIPT.format(tests=str(pathlib.Path(__file__).parent))
    output = subprocess.run(
      [sys.executable, "-c", script],
      env=children.environment(devices),
      capture_output=True,
      check=True,
    ).stdout
    results.append(json.loads(output))
  np.testing.assert_allclose(results[1], results[0], rtol=1e-3)
