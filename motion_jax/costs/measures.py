"""What a recipe's training step takes: time, operations, memory, communication."""

import contextlib
import statistics
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from motion_jax import optim, sharding, state
from motion_jax.config import UserError
from motion_jax.costs import communication, roofline
from motion_jax.costs.flops import stage_flops
from motion_jax.data import pipeline, throughput
from motion_jax.data.inputs import configured_source, training_sampler
from motion_jax.methods import make_method
from motion_jax.models.common import parameter_count

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
  for section in ("method", "modist"):
    if "queue_size" in config.get(section, {}):
      rows = config[section].queue_size
      found[f"{section}.queue_size"] = -(-rows // batch_size) * batch_size
  return found


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


def measure(config: ConfigDict, steps: int, trace: str = "") -> dict:
  """Times a recipe's training step.

  Args:
    config: a whole config.
    steps: timed repetitions, after one that is not.
    trace: folder for a profile of them; '': none.

  Returns:
    What was run, and in `step_seconds` (median), `pretext_share` (of the step),
    `compile_seconds`, `teraflops_per_step` and `gigabytes_accessed` (both as the
    compiler counts them, for one device), `teraflops_per_second` (one device),
    `memory_gigabytes` (arguments and temporaries of one device), `clips_per_second`;
    of devices whose peak is known, also `roofline.shares`.
  """
  mesh, key = sharding.make_mesh(), jax.random.key(config.seed)
  method, create, step = _built(config, mesh, key)
  current, batch = create(), sharding.shard_batch(mesh, example_batch(config))
  began = time.monotonic()
  compiled = step.lower(current, batch).compile()
  compile_seconds = time.monotonic() - began
  current, times = _timed(compiled, current, batch, steps, trace)
  seconds = statistics.median(times)
  pretext = jax.jit(method.pretext)
  pretext_seconds = _median_seconds(lambda: pretext(batch, key, current.step), steps)
  cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
  clips = config.train.batch_size * method.clips_per_example
  work = {
    "teraflops": cost.get("flops", 0.0) / 1e12,
    "gigabytes": cost.get("bytes accessed", 0.0) / 1e9,
  }
  limits = roofline.peak(jax.devices()[0].device_kind)
  return {
    "config": config.name,
    "network": config.model.name,
    "lowering": config.model.lowering,
    "dtype": config.model.dtype,
    "jax": jax.__version__,
    "devices": f"{mesh.size} x {jax.devices()[0].device_kind}",
    "clips_per_step": clips,
    "step_seconds": seconds,
    "step_seconds_min_max": [min(times), max(times)],
    "clips_per_second": clips / seconds,
    "pretext_share": pretext_seconds / seconds,
    "compile_seconds": compile_seconds,
    "teraflops_per_step": work["teraflops"],
    "teraflops_per_second": work["teraflops"] / seconds,
    "gigabytes_accessed": work["gigabytes"],
    "memory_gigabytes": (memory.argument_size_in_bytes + memory.temp_size_in_bytes)
    / 1e9,
    **(roofline.shares(limits, **work, seconds=seconds) if limits else {}),
  }


def stages(config: ConfigDict) -> dict:
  """Operations of a recipe's step by stage, for one pass over the global batch.

  Returns:
    `teraflops_as_written`, and `stage_shares`: of these by stage, see `costs.flops`.
  """
  step, current, batch = abstract_step(config)
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


def abstract_step(config: ConfigDict) -> tuple:
  """A recipe's (train step, state, batch), the last two as shapes: nothing is made."""
  _, create, step = _built(config, sharding.make_mesh(), jax.random.key(config.seed))
  row = pipeline.empty_row(training_sampler(config))
  batch = {
    name: jax.ShapeDtypeStruct((config.train.batch_size, *array.shape), array.dtype)
    for name, array in row.items()
  }
  return step, jax.eval_shape(create), batch


def input_rate(config: ConfigDict, seconds: float) -> dict:
  """Sources per second of the input pipeline alone; None without the data set."""
  try:
    source = configured_source(config.data, "train")
  except UserError as error:
    return {"sources_per_second": None, "input_note": " ".join(str(error).split())}
  rate = throughput.input_rate(
    source,
    training_sampler(config, source),
    batch_size=config.train.batch_size,
    seconds=seconds,
    threads=config.data.threads,
  )
  return {"sources_per_second": rate}


def example_batch(config: ConfigDict) -> dict[str, np.ndarray]:
  """A batch of random pixels, in the shapes of the recipe's sampler."""
  rng = np.random.default_rng(0)
  rows = [pipeline.empty_row(training_sampler(config))] * config.train.batch_size
  batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  for name, array in batch.items():
    if array.dtype == np.uint8:
      batch[name] = rng.integers(0, 256, array.shape, np.uint8)
  batch["extent"][:] = config.data.canvas
  batch["index"][:] = np.arange(len(rows))
  batch["label"][:] = 0
  batch["valid"][:] = True
  return batch


def _built(config, mesh, key):
  """A recipe's (method, creation of its first state, train step)."""
  method = make_method(config)
  optimizer = optim.make_optimizer(config.optim, lambda step: 1e-4)
  parts = config.train.accumulate_steps
  step = state.make_train_step(method, optimizer, key, mesh, accumulate_steps=parts)
  return method, lambda: state.create(method, optimizer, key, mesh), step


def _timed(step, current, batch, count, trace):
  """Runs a step once untimed, and then `count` times: (last state, seconds of each)."""
  current, loss = step(current, batch)
  loss.block_until_ready()
  times = []
  with jax.profiler.trace(trace) if trace else contextlib.nullcontext():
    for _ in range(count):
      began = time.monotonic()
      current, loss = step(current, batch)
      loss.block_until_ready()
      times.append(time.monotonic() - began)
  return current, times


def _median_seconds(function, count):
  times = []
  for _ in range(count + 1):
    began = time.monotonic()
    jax.block_until_ready(function())
    times.append(time.monotonic() - began)
  return statistics.median(times[1:])
