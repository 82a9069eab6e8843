"""MoDist on many devices, and after a restart."""

import json
import pathlib
import subprocess
import sys

import children
import grain
import jax
import numpy as np
import pytest
import small_modist
from jax.sharding import AxisType, Mesh
from small_modist import batch, run, trainer
from test_contrast import collectives

from motion_jax.scale import sharding
from motion_jax.training import state
from motion_jax.training.checkpoint import Checkpoints

RESUMED = dict(queue_size=24)
# Larger than a batch of clips. A norm over two rows would magnify rounding.
LARGE = dict(queue_size=65536, bn_groups=4, projection_norm=False)


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
  small_modist.use_tiny_networks(monkeypatch.setattr)


@pytest.mark.slow
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


def on_devices(count, start):
  """Losses, parameters and new keys of two steps, and the step's collectives."""
  config, method, _, step = trainer(count, **LARGE)
  mesh = Mesh(jax.devices()[:count], ("data",), axis_types=(AxisType.Auto,))
  places = state.state_shardings(method, mesh)
  current, losses = jax.device_put(start, places), []
  step = step.lower(current, batch(config)).compile()
  for index in range(2):
    rows = sharding.shard_batch(mesh, batch(config, seed=index, first=index))
    current, loss = step(current, rows)
    losses.append(float(loss))
  weights = state.initial_weights(method, jax.random.key(0), mesh)
  outputs = state.make_predict(method, mesh)(*weights, rows)
  losses.append(float(outputs["loss"].mean()))
  queues = [queue.keys for queue in current.aux["queues"].values()]
  for keys in queues:
    assert keys.sharding.is_equivalent_to(places.aux["queues"]["visual"].keys, 3)
  results = jax.tree.leaves((current.params, [keys[:2] for keys in queues]))
  results = sum((np.asarray(x).ravel().tolist() for x in results), losses)
  return results, collectives(step.as_text())


def compare_devices():
  start = jax.device_get(trainer(1, **LARGE)[2](0))
  return [on_devices(count, start) for count in (1, 2, 4, 8)]


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
import small_modist, test_modist_devices
small_modist.use_tiny_networks()
print(json.dumps(test_modist_devices.compare_devices()))
"""


@pytest.mark.slow
@pytest.mark.long
def test_devices_agree_and_no_key_of_a_queue_travels():
  script = SCRIPT.format(tests=str(pathlib.Path(__file__).parent))
  output = subprocess.run(
    [sys.executable, "-c", script],
    env=children.environment(8),
    capture_output=True,
    check=True,
  ).stdout
  (one, none), *more = json.loads(output)
  assert not none
  for devices, (other, found) in zip((2, 4, 8), more, strict=True):
    # A step of SGD with rate 1 is the gradient.
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    assert len(found) > 4
    share = LARGE["queue_size"] * 16 // devices
    assert max(size for _, size in found) < share
