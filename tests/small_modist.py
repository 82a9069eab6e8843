"""MoDist on networks that compile in a second, and batches for it."""

import functools

import cv2
import jax
import numpy as np
import optax
import tiny
from jax.sharding import AxisType, Mesh
from test_config import CONFIGS, load

from motion_jax import models
from motion_jax.methods.modist import Modist
from motion_jax.training import state


def use_tiny_networks(replace=setattr):
  replace(models, "build_model", tiny.build_model)


def smoke(bn_groups=1, queue_size=32, **method):
  """The smallest config, with motion as stored edges."""
  config = load(CONFIGS / "modist.py").get_config("smoke")
  config.data.flow = "variational"
  config.method.motion = "edges"
  config.model.bn_groups = bn_groups
  config.method.update(method, queue_size=queue_size)
  return config


def batch(config, seed=0, first=0, rows=None):
  """Videos of moving blobs as the sampler delivers them, motion as stored edges."""
  rng = np.random.default_rng(seed)
  rows, method = rows or config.train.batch_size, config.method
  motion = config.get("modist", method)
  height, width = config.data.canvas
  coarse = rng.integers(0, 256, (rows, 2, 5, 9, 3), np.uint8)
  pictures = [
    cv2.resize(blobs, (width, height)) for blobs in coarse.reshape(-1, 5, 9, 3)
  ]
  clips = [np.roll(pictures, 2 * frame, axis=2) for frame in range(method.frames)]
  edges = rng.integers(0, 60, (rows, 2, motion.motion_frames, height, width, 1))
  return {
    "video": np.stack(clips, 1).reshape(rows, 2, -1, height, width, 3),
    "extent": np.tile(np.array([height, width - 6], np.int32), (rows, 2, 1)),
    "motion": edges.astype(np.uint8),
    "strength": np.full((rows, 2), 0.1, np.float32),
    "pass_rate": (rng.random(rows) < 0.8).astype(np.float32) / 2,
    "valid": np.ones(rows, bool),
    "index": np.arange(first, first + rows, dtype=np.int32),
    "label": np.zeros(rows, np.int32),
  }


@functools.cache  # compiled once for several tests
def started(**settings):
  """(config, method, params, aux, gradient): value_and_grad of the loss, compiled."""
  config = smoke(**settings)
  method = Modist(config)
  gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
  return config, method, *jax.jit(method.init)(jax.random.key(0)), gradient


@functools.cache
def trainer(devices, **settings):
  """(config, method, first state, step) on a mesh of some devices."""
  mesh = Mesh(jax.devices()[:devices], ("data",), axis_types=(AxisType.Auto,))
  config = smoke(**settings)
  method, optimizer, key = Modist(config), optax.sgd(1.0), jax.random.key(3)

  def create(seed):
    return state.create(method, optimizer, jax.random.key(seed), mesh)

  return config, method, create, state.make_train_step(method, optimizer, key, mesh)


def run(steps, devices=1, current=None, first=0, **settings):
  """Trains on a new batch per step; returns (last state, losses)."""
  config, _, create, step = trainer(devices, **settings)
  current, losses = current or create(0), []
  for index in range(first, first + steps):
    current, loss = step(current, batch(config, seed=index, first=8 * index))
    losses.append(float(loss))
  return current, losses
