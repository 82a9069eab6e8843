"""Held-out metrics of methods on small networks, for tests of batches and devices.

  python same_heldout.py FOLDER mosi,mas 16x1,6x4

measures frame folders in FOLDER with batches of 16 on one device and of 6 on four, and
prints {method: {"16x1": {metric: value}}}.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import small_modist
import test_joint
import test_mas
import test_mosi
import tiny
from jax.sharding import AxisType, Mesh

from motion_jax import models
from motion_jax.data import open_source
from motion_jax.evaluation.held_out import HeldOut
from motion_jax.methods import make_method
from motion_jax.ops import motion_inputs
from motion_jax.scale import sharding
from motion_jax.training import state


def quick_flow(pairs, extent, **_):
  """In place of optical flow, which takes minutes to compile."""
  pairs = pairs.astype(np.float32) / 25
  return pairs[:, :, 1, ..., :2] - pairs[:, :, 0, ..., :2]


def differences():
  """MoDist with motion that needs no preparation."""
  config = small_modist.smoke(motion="frame_difference")
  config.data.flow = ""
  return config


def all_parts():
  config = test_joint.smoke(mosi_every=4)
  config.modist.motion = "frame_difference"
  config.data.flow = ""
  return config


METHODS = {
  "mosi": test_mosi.smoke,
  "modist": differences,
  "mas": test_mas.smoke,
  "joint": all_parts,
}


def measure(name, source, bad_files, batch_size, devices):
  config = METHODS[name]()
  config.eval.batch_size = batch_size
  config.train.batch_size = 8  # queues that three devices cannot share
  devices = sharding.make_mesh().devices[:devices]
  mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
  method = make_method(config)
  held_out = HeldOut(source, method, config, mesh, bad_files)
  weights = state.initial_weights(method, jax.random.key(0), mesh)
  # Other statistics than 0 and 1, under which little depends on the weights.
  rng = np.random.default_rng(0)
  aux = jax.tree.map(
    lambda x: x * rng.uniform(0.5, 2) if x.dtype == np.float32 else x, weights[1]
  )
  return held_out(weights[0], aux)


def main(folder, names, layouts):
  models.build_model = tiny.build_model
  motion_inputs.flow_of_pairs = quick_flow
  source = open_source(folder, split="all")
  bad_files = pathlib.Path(folder).parent / "bad_files.txt"
  found = {
    name: {
      layout: measure(name, source, bad_files, *map(int, layout.split("x")))
      for layout in layouts.split(",")
    }
    for name in names.split(",")
  }
  print(json.dumps(found))


if __name__ == "__main__":
  main(*sys.argv[1:])
