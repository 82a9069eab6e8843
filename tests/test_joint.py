"""The joint method: its loss is the weighted sum of three methods on one encoder."""

import functools
import json

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import nnx
from small_modist import batch
from test_config import CONFIGS, load

from motion_jax import load_encoder, models
from motion_jax.config import UserError
from motion_jax.methods import joint, make_method, mas, modist, mosi
from motion_jax.methods.joint import PARTS, Joint
from motion_jax.scale import sharding
from motion_jax.train import train
from motion_jax.training import state
from motion_jax.training.checkpoint import Checkpoints

WEIGHTS = dict(mosi_weight=1.0, modist_weight=0.5, mas_weight=0.25)
ALONE = {"mosi": mosi.Mosi, "modist": modist.Modist, "mas": mas.Mas}


@functools.cache
def seed_key():
  """A function: importing this file must not start JAX; see same_steps.py."""
  return jax.random.key(3)


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch):
  monkeypatch.setattr(models, "build_model", tiny.build_model)


def smoke(**method):
  """The smallest recipe, with motion as stored edges, little flow and few labels."""
  config = load(CONFIGS / "joint.py").get_config("smoke")
  config.data.flow = "variational"
  config.modist.update(motion="edges", queue_size=16)
  config.mas.update(flow_warps=1, flow_iterations=1)
  config.mas.update(patterns=("grid",), appearance=False)
  config.mosi.update(axes="x", speeds=1)
  config.model.bn_groups = 1
  config.method.update({**WEIGHTS, **method})
  config.train.batch_size = config.eval.batch_size = 8
  return config.copy_and_resolve_references()


def alone(name):
  """The method of its own config file, with the settings of its section."""
  config, ours = load(CONFIGS / f"{name}.py").get_config("smoke"), smoke()
  config.method.update(ours[name].to_dict())
  config.model.bn_groups = 1
  for key in {"short_side", "canvas", "flow"} & {*config.data}:
    config.data[key] = ours.data[key]
  if name == "mosi":
    config.data.short_side, config.data.canvas = 64, (64, 64)
  return ALONE[name](config)


@functools.cache
def trainer():
  """(method, creation of a state, step): compiled once for several tests."""
  method, optimizer, mesh = Joint(smoke()), optax.sgd(1.0), sharding.make_mesh()

  def create(seed):
    return state.create(method, optimizer, jax.random.key(seed), mesh)

  return method, create, state.make_train_step(method, optimizer, seed_key(), mesh)


def run(steps, current, first=0):
  """Trains on a new batch per step; returns (last state, losses)."""
  losses = []
  for index in range(first, first + steps):
    rows = batch(smoke(), seed=index, first=8 * index)
    current, loss = trainer()[2](current, rows)
    losses.append(float(loss))
  return current, losses


@functools.cache
def one_step():
  """Parameters and aux before and after a step, its loss and metrics."""
  current = trainer()[1](0)
  before = jax.device_get((current.params, current.aux))
  after, losses = run(1, current)
  found = jax.device_get(after.metrics.compute())
  return before, jax.device_get((after.params, after.aux)), losses[0], found


@functools.cache
def separately():
  """Loss, gradient and aux of each method alone, on the first batch."""
  method, (params, aux) = trainer()[0], one_step()[0]
  parts = {name: alone(name) for name in PARTS}

  @jax.jit
  def compute(params, aux, rows, key):
    found = {}
    for name, some in method.rows(rows, key).items():
      gradient = jax.value_and_grad(parts[name].loss, has_aux=True)
      tree, own = joint.part_params(params, name), joint.part_key(key, name)
      (loss, (new, _)), grads = gradient(tree, aux[name], some, own, 0)
      found[name] = loss, grads, new
    return found

  key = jax.random.fold_in(seed_key(), 0)
  return jax.device_get(compute(params, aux, batch(smoke()), key))


def weight(name):
  return WEIGHTS[f"{name}_weight"]


def assert_close(found, expected):
  for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    scale = max(np.abs(other).max(), 1e-3)  # of the rounding errors of a sum
    np.testing.assert_allclose(one / scale, other / scale, atol=2e-3)


@pytest.mark.slow
def test_the_loss_is_the_weighted_sum_of_the_methods_alone():
  *_, loss, found = one_step()
  singles = separately()
  for name in PARTS:
    assert found[f"{name}_loss"] == pytest.approx(singles[name][0], rel=1e-4)
  total = sum(weight(name) * singles[name][0] for name in PARTS)
  assert [loss, found["loss"]] == pytest.approx([total] * 2, rel=1e-4)


@pytest.mark.slow
def test_the_shared_encoder_gets_the_weighted_sum_of_the_gradients():
  (before, _), (after, _), *_ = one_step()
  step = jax.tree.map(np.subtract, before, after)  # SGD of rate 1: the gradient
  encoders = []
  for name in PARTS:
    gradient = optax.tree.scale(weight(name), separately()[name][1])
    encoder, rest = joint.split_encoder(gradient, name)
    assert_close(step[name], rest)
    encoders.append(jax.tree.leaves(encoder))
    assert max(np.abs(leaf).max() for leaf in encoders[-1]) > 1e-4
  assert_close(step["encoder"], [sum(leaves) for leaves in zip(*encoders, strict=True)])


@pytest.mark.parametrize("name", PARTS)
def test_without_one_of_them_the_loss_is_that_of_the_others(monkeypatch, name):
  fewer = Joint(smoke(**{f"{name}_weight": 0.0}))
  assert set(fewer.parts) == {*PARTS} - {name}
  params = {part: nnx.State({"head": jnp.ones(2)}) for part in fewer.parts}
  if "modist" in params:
    params["modist"] = {"visual": params["modist"]}
  params["encoder"] = nnx.State({"kernel": jnp.arange(3.0)})
  expected = 0.0
  for place, part in enumerate(PARTS):

    def loss(params, aux, rows, key, step, place=place):
      leaves = sum(leaf.sum() for leaf in jax.tree.leaves(params))
      draw = jax.random.uniform(key)  # the same one whatever is left out
      return (place + 1) * leaves + draw, (aux, {})

    if part in fewer.parts:
      monkeypatch.setattr(fewer.parts[part], "loss", loss)
      draw = jax.random.uniform(joint.part_key(seed_key(), part))
      expected += weight(part) * ((place + 1) * 5.0 + draw)
  found = fewer.loss(params, dict.fromkeys(PARTS, 0), batch(smoke()), seed_key(), 0)[0]
  assert float(found) == pytest.approx(float(expected))


@pytest.mark.slow
def test_statistics_queues_and_the_momentum_copy_are_those_of_the_parts():
  (params, before), (moved, after), *_ = one_step()
  copy = before["modist"]["visual"]["key_params"]["encoder"]
  jax.tree.map(np.testing.assert_array_equal, copy, params["encoder"])
  assert after["modist"]["queues"]["visual"].ids.tolist()[0] == [*range(8)]
  momentum = smoke().modist.momentum
  expected = jax.tree.map(
    lambda old, new: momentum * old + (1 - momentum) * new, copy, moved["encoder"]
  )
  assert_close(after["modist"]["visual"]["key_params"]["encoder"], expected)
  for name in ("mosi", "mas"):
    assert_close(after[name], separately()[name][2])


@pytest.mark.slow
def test_the_encoder_has_the_shared_weights_and_the_statistics_of_mas():
  _, (params, aux), *_ = one_step()
  found = trainer()[0].encoder(params, aux).path
  kernel = params["encoder"]["path"]["convs"][0]["kernel"]
  np.testing.assert_array_equal(found.convs[0].kernel[...], kernel)
  means = [
    stats["encoder"]["path"]["norms"][0]["mean"]
    for stats in (
      aux["mas"]["stats"],
      aux["mosi"]["stats"],
      aux["modist"]["visual"]["stats"],
    )
  ]
  np.testing.assert_array_equal(found.norms[0].mean[...], means[0])
  assert not any(np.allclose(means[0], other) for other in means[1:])


@pytest.mark.slow
def test_three_steps_are_two_and_one_more_after_a_restart(tmp_path):
  create = trainer()[1]
  straight, losses = run(3, create(1))
  half, first = run(2, create(1))
  data = iter(grain.MapDataset.range(9).to_iter_dataset())
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(half, data, {"name": "joint"}, {})
  checkpoints.wait()
  resumed, rest = run(1, checkpoints.restore(2, create(99), data), first=2)
  checkpoints.close()
  assert first + rest == losses
  for one, other in zip(*map(jax.tree.leaves, (straight, resumed)), strict=True):
    np.testing.assert_array_equal(one, other)


def test_metrics_carry_the_name_of_their_method():
  method = trainer()[0]
  weights = jax.eval_shape(method.init, seed_key())
  outputs = jax.eval_shape(method.predict, *weights, batch(smoke()))
  fields = method.metrics.__annotations__
  for name in ("mosi_pretext_accuracy", "modist_queue_fill", "mas_motion_constant"):
    assert name in fields
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), outputs)
  found = method.metrics.single_from_model_output(**zeros).compute()
  assert set(found) == {"loss", *fields}


def test_sources_are_squares_of_one_frame_of_every_second_video():
  rows = batch(smoke())
  values = np.arange(64, dtype=np.uint8).reshape(8, 2, 4) + 100  # by video, clip, frame
  rows["video"][:] = 255  # outside the frames
  rows["video"][:, :, :, :30, :50] = values[..., None, None, None]
  rows["extent"][:] = 30, 50
  found = trainer()[0].rows(rows, jax.random.key(1))["mosi"]
  assert found["index"].tolist() == [0, 2, 4, 6]
  assert found["image"].shape == (4, 64, 64, 3) and (found["extent"] == 64).all()
  for image, of_query in zip(found["image"], values[::2, 0], strict=True):
    assert np.ptp(image) == 0 and image[0, 0, 0] in of_query
  assert len({int(image[0, 0, 0]) % 4 for image in found["image"]}) > 1


@pytest.mark.parametrize("modist_weight", [0.0, 0.5])
def test_without_modist_no_motion_is_decoded(modist_weight):
  config = load(CONFIGS / "joint.py").get_config("smoke")
  config.method.modist_weight = modist_weight
  row = make_method(config).sampler("train").empty()
  assert ("motion_pairs" in row) == (modist_weight > 0)


def test_each_part_draws_into_a_folder_of_its_name(monkeypatch, tmp_path):
  method, drawn = trainer()[0], {}
  for name, part in method.parts.items():
    for what in ("save_figures", "save_results"):
      monkeypatch.setattr(
        part, what, lambda path, *_, key=(name, what): drawn.update({key: path})
      )
  method.save_figures(tmp_path, batch(smoke()), seed_key())
  assert drawn == {(name, "save_figures"): tmp_path / name for name in PARTS}
  drawn.clear()
  current = trainer()[1](0)
  method.save_results(tmp_path, current.params, current.aux, batch(smoke()))
  assert drawn == {(name, "save_results"): tmp_path / name for name in PARTS}


@pytest.mark.parametrize("word", ["synthetic_actions", "ucf101"])
def test_recipes_fit_together(word):
  config = load(CONFIGS / "joint.py").get_config(word)
  method = make_method(config)
  clips = config.train.batch_size * method.clips_per_example
  sources = config.train.batch_size // config.method.mosi_every
  assert clips == 9 * sources + 5 * config.train.batch_size
  for name in PARTS:  # what is shared is in `method` alone
    assert not {"frames", "size", "mean", "std"} & {*config[name]}


@pytest.mark.parametrize(
  ("section", "changes", "message"),
  [
    ("method", dict.fromkeys(WEIGHTS, 0.0), "one of them at least"),
    ("method", dict(mas_weight=-1.0), "mas_weight=-1.0 must be 0 or more"),
    ("method", dict(mosi_side=32), "no room to move"),
    ("method", dict(mosi_every=3), "must be a multiple of method.mosi_every=3"),
    ("model", dict(bn_groups=8), "x 8, model.bn_groups"),
    ("mosi", dict(axes="z"), "mosi .*'z'"),
  ],
)
def test_settings_that_cannot_work_are_refused(section, changes, message):
  config = smoke()
  config[section].update(changes)
  with pytest.raises(UserError, match=message):
    make_method(config)


@pytest.mark.slow
@pytest.mark.long
def test_a_whole_run_leaves_an_encoder_figures_and_metrics(tmp_path):
  config = load(CONFIGS / "joint.py").get_config("smoke")
  train(config, tmp_path)
  encoder = load_encoder(tmp_path)
  assert encoder(np.zeros((2, 4, 32, 32, 3), np.uint8)).shape == (2, 16)
  for name in PARTS:
    assert (tmp_path / "figures" / name / "pretext.png").exists()
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert {"eval/loss", "train/mas_loss", "eval/retrieval_r1"} <= summary.keys()
