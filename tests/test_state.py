"""The train step: masks, randomness, accumulation, many devices."""

import json
import pathlib
import subprocess
import sys
import types

import children
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_config import CONFIGS, load

from motion_jax.config import UserError
from motion_jax.methods import make_method
from motion_jax.scale import sharding
from motion_jax.training import state

METHOD = tiny.Regression()


def run(steps, *, accumulate_steps=1, seed=0):
  mesh = sharding.make_mesh()
  optimizer = optax.adam(3e-2)
  key = jax.random.key(seed)
  current = state.create(METHOD, optimizer, key, mesh)
  step = state.make_train_step(
    METHOD, optimizer, key, mesh, accumulate_steps=accumulate_steps
  )
  losses = []
  for index in range(steps):
    rows = jax.tree.map(np.asarray, tiny.batch(index))
    current, loss = step(current, sharding.shard_batch(mesh, rows))
    losses.append(float(loss))
  return current, losses


def test_steps_lower_the_loss_and_count():
  current, losses = run(200)
  assert int(current.step) == 200 == int(current.aux["calls"])
  last = METHOD.predict(current.params, current.aux, tiny.batch(200))["loss"]
  assert float(last.mean()) < 0.1 * losses[0]


def test_rows_that_are_not_valid_change_nothing():
  method, optimizer = METHOD, optax.sgd(0.1)
  mesh, key = sharding.make_mesh(), jax.random.key(0)
  step = state.make_train_step(method, optimizer, key, mesh)
  results = []
  for poison in (0.0, 1e6):
    rows = tiny.batch(0)
    rows["inputs"] = rows["inputs"].at[3].set(poison)
    current, _ = step(state.create(method, optimizer, key, mesh), rows)
    results.append((current.params["kernel"], current.metrics.compute()["loss"]))
  np.testing.assert_array_equal(results[0][0], results[1][0])
  np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", ["mosi", "modist", "mas", "finetune"])
def test_no_method_starts_weakly_typed(name):
  config = load(CONFIGS / f"{name}.py").get_config("smoke")
  if name == "finetune":
    config.method.classes = 3
  method = make_method(config)
  # The arrays of a step are not: the second step would compile anew.
  for leaf in jax.tree.leaves(jax.eval_shape(method.init, jax.random.key(0))):
    assert not leaf.weak_type


def test_every_step_draws_anew_and_a_repeat_draws_the_same():
  first, again, other = run(3)[1], run(3)[1], run(3, seed=1)[1]
  assert first == again
  assert first != other


def test_accumulated_gradients_are_the_mean_over_the_parts():
  method, mesh, key = METHOD, sharding.make_mesh(), jax.random.key(0)
  rows = tiny.batch(0)
  start = state.create(method, optax.sgd(1.0), key, mesh)
  before = np.asarray(start.params["kernel"])
  step = state.make_train_step(method, optax.sgd(1.0), key, mesh, accumulate_steps=2)
  after, _ = step(start, rows)
  step_key = jax.random.fold_in(key, 0)
  grads = []
  for part in range(2):
    half = {name: array[part::2] for name, array in rows.items()}
    part_key = jax.random.fold_in(step_key, part)

    def loss(kernel, half=half, part_key=part_key):
      return method.loss({"kernel": kernel}, {"calls": 0.0}, half, part_key, 0)[0]

    grads.append(jax.grad(loss)(jnp.asarray(before)))
  np.testing.assert_allclose(
    np.asarray(after.params["kernel"]), before - sum(grads) / 2, rtol=1e-5, atol=1e-6
  )
  assert int(after.aux["calls"]) == 2


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
import test_state
current, losses = test_state.run(4, accumulate_steps={parts})
print(json.dumps(losses + [float(current.params['kernel'].sum())]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_one_two_and_four_devices_agree(parts):
  results = []
  for devices in (1, 2, 4):
    script = SCRIPT.format(tests=str(pathlib.Path(__file__).parent), parts=parts)
    output = subprocess.run(
      [sys.executable, "-c", script],
      env=children.environment(devices),
      capture_output=True,
      check=True,
    ).stdout
    results.append(json.loads(output))
  np.testing.assert_allclose(results[1], results[0], rtol=1e-5)
  np.testing.assert_allclose(results[2], results[0], rtol=1e-5)


def test_batches_of_evaluations_grow_to_fit_the_devices():
  mesh = types.SimpleNamespace(size=6)
  sizes = [sharding.evaluation_rows(size, mesh) for size in (1, 12, 16)]
  assert sizes == [6, 12, 18]
  with pytest.raises(UserError, match=r"eval\.batch_size=0 must be"):
    sharding.evaluation_rows(0, mesh)


@pytest.mark.parametrize(("size", "hint"), [(10, "8 and 12"), (3, "sizes are 4")])
def test_a_batch_that_does_not_fit_the_devices_names_the_nearest(size, hint):
  with pytest.raises(UserError, match=hint):
    sharding.check_batch_size("train.batch_size", size, 4, "4 devices")
