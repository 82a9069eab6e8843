"""MoDist on many devices, and after a restart."""

import json
import os
import pathlib
import subprocess
import sys

import grain
import jax
import numpy as np
import pytest
import small_modist
from small_modist import batch, run, trainer
from test_contrast import collectives

from motion_jax import sharding, state
from motion_jax.checkpoint import Checkpoints
from motion_jax.ops import contrast

RESUMED = dict(queue_size=24)


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
  small_modist.use_tiny_networks(monkeypatch.setattr)


def test_four_steps_are_two_and_two_more_after_a_restart(tmp_path):
  straight, losses = run(4, **RESUMED)
  half, first = run(2, **RESUMED)
  data = iter(grain.MapDataset.range(9).to_iter_dataset())
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(half, data, {"name": "modist"}, {})
  checkpoints.wait()
  _, _, create, _ = trainer(1, **RESUMED)
  restored = checkpoints.restore(2, create(99), data)
  resumed, rest = run(2, current=restored, first=2, **RESUMED)
  assert first + rest == losses
  for one, other in zip(*map(jax.tree.leaves, (straight, resumed)), strict=True):
    np.testing.assert_array_equal(one, other)


def on_devices(count, bn_groups):
  """Losses of some steps, then gradients and queues, on some devices."""
  settings = dict(bn_groups=bn_groups, queue_size=24)
  current, losses = run(4, count, **settings)
  config, method, *_ = trainer(count, **settings)
  mesh = method._mesh
  places = state.state_shardings(method, mesh)
  for queue in current.aux["queues"].values():
    assert queue.keys.sharding.is_equivalent_to(
      contrast.queue_shardings(mesh).keys, queue.keys.ndim
    )
  gradient = jax.jit(
    jax.grad(method.loss, has_aux=True),
    in_shardings=(places.params, places.aux, sharding.split_rows(mesh), None, None),
  )
  rows = batch(config, seed=7, first=3)
  grads, _ = gradient(current.params, current.aux, rows, jax.random.key(1), 4)
  queues = [queue.keys for queue in current.aux["queues"].values()]
  leaves = [np.asarray(x).ravel().tolist() for x in jax.tree.leaves((grads, queues))]
  return sum(leaves, losses)


def collectives_of_a_step(bn_groups):
  """Collectives of the train step on 8 devices, and a device's share of a queue."""
  config, _, create, step = trainer(8, bn_groups=bn_groups, queue_size=65536)
  text = step.lower(create(0), batch(config)).compile().as_text()
  return collectives(text), config.method.queue_size * config.method.embedding // 8


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
import small_modist, test_modist_devices as t
small_modist.use_tiny_networks()
runs = [[t.on_devices(n, groups) for n in (1, 2, 4, 8)] for groups in (1, 4)]
print(json.dumps([runs, [t.collectives_of_a_step(groups) for groups in (1, 4)]]))
"""


@pytest.mark.slow
def test_devices_agree_and_no_key_of_a_queue_travels():
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
  }
  script = SCRIPT.format(tests=str(pathlib.Path(__file__).parent))
  output = subprocess.run(
    [sys.executable, "-c", script], env=environment, capture_output=True, check=True
  ).stdout
  runs, steps = json.loads(output)
  for one, *more in runs:
    for other in more:
      np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
  for found, share in steps:
    assert len(found) > 4
    assert max(size for _, size in found) < share
