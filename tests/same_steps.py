"""A few steps of every method on small networks, for tests of devices and processes.

  python same_steps.py mosi,mas 1,8                            on one and on 8 devices
  python same_steps.py mosi,mas 4 HOST:PORT --process_index=0  in one of two processes

prints {method: {devices: numbers}}, the same numbers however the work is split.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import small_modist
import test_classify
import test_detect
import test_joint
import test_mas
import test_mosi
import tiny
from jax.sharding import AxisType, Mesh
from test_config import CONFIGS, load

from motion_jax import models
from motion_jax.methods import make_method
from motion_jax.scale import cluster, hosts, sharding
from motion_jax.training import state

ROWS, STEPS = 8, 2
# Behind the projection, a norm over so few and so similar rows magnifies rounding.
PLAIN = dict(projection_norm=False)
# The flow takes most of the compilation.
QUICK_FLOW = dict(flow_warps=1, flow_iterations=2, flow_level=1)


class Encoder(tiny.Encoder):
  """For classifiers, which may freeze stages."""

  def stage_paths(self):
    return []


def detect():
  config = load(CONFIGS / "detect.py").get_config("smoke")
  boxes = np.tile([0.25, 0.25, 0.625, 0.75], (ROWS, 1))
  return config, test_detect._batch(boxes, ROWS)


def joint():
  config = test_joint.smoke(mosi_every=1)
  config.modist.update(PLAIN)
  config.train.batch_size = config.eval.batch_size = ROWS
  return config, small_modist.batch(config)


TASKS = {
  "mosi": lambda: (test_mosi.smoke(), test_mosi.batch(ROWS)),
  "modist": lambda: (
    small_modist.smoke(bn_groups=4, **PLAIN),
    small_modist.batch(small_modist.smoke()),
  ),
  "mas": lambda: (test_mas.smoke(**QUICK_FLOW), test_mas.batch(ROWS)),
  "joint": joint,
  "classify": lambda: (test_classify.smoke(), test_classify.batch(ROWS)),
  "detect": detect,
}


def fingerprint(array: jax.Array) -> jax.Array:
  """A length that changes with the places and the signs of the values, too."""
  values = array.astype(float).ravel()
  scale = jnp.sqrt(jnp.square(values).mean())
  return jnp.linalg.norm(values + scale * jnp.cos(jnp.arange(len(values))))


def numbers(name: str, mesh: Mesh) -> list[float]:
  """Losses of the steps, and a fingerprint of every array of the last state."""
  config, batch = TASKS[name]()
  method = make_method(config)
  # A step of plain descent is the gradient: no optimiser hides its scale.
  optimizer, key = optax.sgd(0.1), jax.random.key(0)
  current = state.create(method, optimizer, key, mesh)
  step = state.make_train_step(method, optimizer, key, mesh)
  here, count = jax.process_index(), ROWS // jax.process_count()
  own = {name: array[here * count :][:count] for name, array in batch.items()}
  rows = sharding.join_rows(mesh, own)
  step = step.lower(current, rows).compile()
  hosts.barrier(f"{name} is compiled")
  losses = []
  for _ in range(STEPS):
    current, loss = step(current, rows)
    losses.append(float(loss))
  found = jax.jit(
    lambda tree: [fingerprint(leaf) for leaf in tree],
    out_shardings=sharding.replicated(mesh),
  )
  leaves = jax.tree.leaves((current.params, current.aux))
  return losses + [float(value) for value in found(leaves)]


def main(names, counts, coordinator="", process=""):
  if coordinator:
    cluster.join(coordinator, 2, int(process.removeprefix("--process_index=")))
  build = models.build_model  # detection needs a ResNet
  models.build_model = lambda name, **options: Encoder(**options)
  devices = sharding.make_mesh().devices
  found = {}
  for name in names.split(","):
    if name == "detect":
      models.build_model = build
    for count in map(int, counts.split(",")):
      mesh = Mesh(devices[:count], ("data",), axis_types=(AxisType.Auto,))
      found.setdefault(name, {})[count] = numbers(name, mesh)
  print(json.dumps(found))


if __name__ == "__main__":
  main(*sys.argv[1:])
