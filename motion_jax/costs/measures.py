"""What a recipe's training step takes: operations and communication."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.costs import communication
from motion_jax.costs.flops import stage_flops
from motion_jax.data.absent import absent_source
from motion_jax.data.rows import empty_row, for_devices
from motion_jax.methods import make_method, method_class
from motion_jax.methods.base import Method
from motion_jax.models.common import parameter_count
from motion_jax.scale import sharding
from motion_jax.training import optim, state

# For a program that is read, not run.
_COMPILE_QUICKLY = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}


def sized(config: ConfigDict, batch_size: int) -> dict[str, int]:
  """Overrides that give a recipe another batch.

  Args:
    config: a whole config.
    batch_size: 1 or more.

  Returns:
    {key: value}; several groups of BatchNorm keep their size, queues fit the batch.
  """
  found = {"train.batch_size": batch_size}
  groups = config.model.bn_groups
  if groups > 1:
    most = max(1, groups * batch_size // config.train.batch_size)
    fitting = (number for number in range(most, 0, -1) if batch_size % number == 0)
    found["model.bn_groups"] = next(fitting)
  return found | method_class(config).sized(config, batch_size)


def scaled(config: ConfigDict, devices: int, rows: int = 0) -> ConfigDict:
  """A copy of a recipe for a number of devices.

  Args:
    config: a whole config; it stays as it is.
    devices: how many.
    rows: of the batch, on each of them; 0: the recipe's, split over 8 devices.
  """
  config = config.copy_and_resolve_references()
  rows = rows or -(-config.train.batch_size // 8)
  config.update_from_flattened_dict(sized(config, devices * rows))
  if config.model.lowering == "auto":
    config.model.lowering = "native"
  return config


def stages(config: ConfigDict) -> dict:
  """What `counted` tells of a recipe; nothing is compiled or run."""
  return counted(*abstract_step(config))


def counted(step, current, batch) -> dict:
  """Operations of a train step by stage, for one pass over the global batch.

  Args:
    step: from `built`.
    current, batch: its arguments, or their shapes.

  Returns:
    `teraflops_as_written`, and `stage_shares`: of these by stage, see `costs.flops`.
  """
  flops = stage_flops(step, current, batch)
  total = sum(flops.values())
  return {
    "teraflops_as_written": total / 1e12,
    "stage_shares": {name or "rest": cost / total for name, cost in flops.items()},
  }


def communicated(config: ConfigDict) -> dict:
  """What all devices that there are send each other in a recipe's step.

  Returns:
    The recipe's sizes, and `communication.summary` of its compiled step.
  """
  step, current, batch = abstract_step(config)
  program = step.lower(current, batch).compile(compiler_options=_COMPILE_QUICKLY)
  return {
    "config": config.name,
    "network": f"{config.model.name}, width {config.model.width}",
    "devices": jax.device_count(),
    "batch_size": config.train.batch_size,
    "bn_groups": config.model.bn_groups,
    "parameter_megabytes": 4 * parameter_count(current.params) / 1e6,
    **communication.summary(program.as_text(), jax.device_count()),
  }


def abstract_step(config: ConfigDict, mesh: Mesh | None = None) -> tuple:
  """A recipe's (train step, state, batch), the last two as shapes: nothing is made.

  Args:
    config: a whole config, with its number of classes; no data are opened.
    mesh: that the step is for; None for one over all devices.
  """
  mesh = sharding.make_mesh() if mesh is None else mesh
  parts = built(config, mesh, jax.random.key(config.seed))
  sampler = parts.method.sampler("train", absent_source(config.data))
  row = for_devices(empty_row(sampler))
  batch = {
    name: jax.ShapeDtypeStruct((config.train.batch_size, *array.shape), array.dtype)
    for name, array in row.items()
  }
  return parts.step, jax.eval_shape(parts.create), batch


def example_batch(config: ConfigDict) -> dict[str, np.ndarray]:
  """A batch of random pixels, in the shapes of the recipe's sampler."""
  rng = np.random.default_rng(0)
  sampler = make_method(config).sampler("train", absent_source(config.data))
  row = for_devices(empty_row(sampler))
  rows = [row] * config.train.batch_size
  batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  for name, array in batch.items():
    if array.dtype == np.uint8:
      batch[name] = rng.integers(0, 256, array.shape, np.uint8)
  batch["extent"][:] = config.data.canvas
  batch["index"][:] = np.arange(len(rows))
  batch["label"][:] = 0
  batch["valid"][:] = True
  return batch


class Built(NamedTuple):
  """What a recipe's training is made of; `create` makes its first state."""

  method: Method
  optimizer: optax.GradientTransformation
  create: Callable[[], state.TrainState]
  step: Callable


def built(config: ConfigDict, mesh: Mesh, key: jax.Array) -> Built:
  """Builds the training of a recipe, without data; nothing runs yet."""
  method = make_method(config)
  method.check_training(mesh)
  optimizer = optim.make_optimizer(config.optim, lambda step: 1e-4)
  parts = config.train.accumulate_steps
  step = state.make_train_step(method, optimizer, key, mesh, accumulate_steps=parts)
  create = partial(state.create, method, optimizer, key, mesh)
  return Built(method, optimizer, create, step)
