"""Speed of a recipe: `python -m motion_jax.benchmark --config=configs/mosi.py:hmdb51`.

Times the whole training step on generated pictures, the making of its pretext inputs
alone, and, where the recipe's data is at hand, the input pipeline; counts the
operations of the step's stages. One JSON object per convolution lowering goes to
stdout, a table to stderr. With `--count_only` nothing is compiled or run: for recipes
that this machine is too small for.

`--communication=8,64,256` runs nothing either, but compiles the step for so many
devices that exist in name only, each with as many rows of the batch, and tells what
they send each other. Sizes are of float32, the convolutions those of accelerators.
"""

import json
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from motion_jax import (
  command,
  communication,
  logs,
  optim,
  sharding,
  stage_costs,
  state,
)
from motion_jax.config import UserError
from motion_jax.data import pipeline, throughput
from motion_jax.data.inputs import configured_source, training_sampler
from motion_jax.methods import make_method

_CONFIG = command.define_config_flag()
_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps; medians are reported.")
_LOWERINGS = flags.DEFINE_list(
  "lowerings",
  [],
  "Convolution lowerings to compare: native, folded; the recipe's if ''.",
)
_COUNT_ONLY = flags.DEFINE_bool(
  "count_only", False, "Only count the operations of each stage of the step."
)
_COMMUNICATION = flags.DEFINE_list(
  "communication", [], "Numbers of devices for which to tell what they communicate."
)
_ROWS = flags.DEFINE_integer(
  "rows_per_device", 0, "Of the batch, for --communication; 0: the recipe's on 8."
)
_INPUT_SECONDS = flags.DEFINE_float("input_seconds", 5.0, "Time for the input rate.")


# For a program that is read, not run.
_COMPILE_QUICKLY = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}


def main() -> None:
  config = _CONFIG.value
  if _COMMUNICATION.value:
    _communicate(config, _COMMUNICATION.value)
    return
  logs.to_console()
  command.use_compilation_cache()
  command.keep_freed_memory()
  if _COUNT_ONLY.value:
    result = {"config": config.name, **stages(config)}
    print(json.dumps(result), flush=True)
    print(table(result), file=sys.stderr, flush=True)
    return
  rate = input_rate(config, _INPUT_SECONDS.value)
  for lowering in _LOWERINGS.value or [config.model.lowering]:
    config.model.lowering = lowering
    result = {**measure(config, _STEPS.value), **stages(config), **rate}
    print(json.dumps(result), flush=True)
    print(table(result), file=sys.stderr, flush=True)


def measure(config: ConfigDict, steps: int) -> dict:
  """Times a recipe's training step.

  Args:
    config: a whole config.
    steps: timed repetitions, after one that is not.

  Returns:
    What was run, and in `step_seconds` (median), `pretext_share` (of the step),
    `compile_seconds`, `teraflops_per_step` and `gigabytes_accessed` (both as the
    compiler counts them, for one device), `teraflops_per_second` (one device),
    `memory_gigabytes` (arguments and temporaries of one device), `clips_per_second`.
  """
  mesh = sharding.make_mesh()
  method = make_method(config)
  key = jax.random.key(config.seed)
  optimizer = optim.make_optimizer(config.optim, lambda step: 1e-4)
  current = state.create(method, optimizer, key, mesh)
  batch = sharding.shard_batch(mesh, example_batch(config))
  step = state.make_train_step(
    method, optimizer, key, mesh, accumulate_steps=config.train.accumulate_steps
  )
  began = time.monotonic()
  compiled = step.lower(current, batch).compile()
  compile_seconds = time.monotonic() - began
  times = []
  for _ in range(steps + 1):
    began = time.monotonic()
    current, loss = compiled(current, batch)
    loss.block_until_ready()
    times.append(time.monotonic() - began)
  seconds = statistics.median(times[1:])
  pretext = jax.jit(method.pretext)
  pretext_seconds = _median_seconds(lambda: pretext(batch, key, current.step), steps)
  cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
  clips = config.train.batch_size * method.clips_per_example
  return {
    "config": config.name,
    "network": config.model.name,
    "lowering": config.model.lowering,
    "dtype": config.model.dtype,
    "jax": jax.__version__,
    "devices": f"{mesh.size} x {jax.devices()[0].device_kind}",
    "clips_per_step": clips,
    "step_seconds": seconds,
    "step_seconds_min_max": [min(times[1:]), max(times[1:])],
    "clips_per_second": clips / seconds,
    "pretext_share": pretext_seconds / seconds,
    "compile_seconds": compile_seconds,
    "teraflops_per_step": cost.get("flops", 0.0) / 1e12,
    "teraflops_per_second": cost.get("flops", 0.0) / 1e12 / seconds,
    "gigabytes_accessed": cost.get("bytes accessed", 0.0) / 1e9,
    "memory_gigabytes": (memory.argument_size_in_bytes + memory.temp_size_in_bytes)
    / 1e9,
  }


def stages(config: ConfigDict) -> dict:
  """Operations of a recipe's step by stage, for one pass over the global batch.

  Returns:
    `teraflops_as_written`, and `stage_shares`: of these by stage, see `stage_costs`.
  """
  step, current, batch = abstract_step(config)
  flops = stage_costs.stage_flops(step, current, batch)
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
  leaves = jax.tree.leaves(current.params)
  return {
    "config": config.name,
    "network": f"{config.model.name}, width {config.model.width}",
    "devices": jax.device_count(),
    "batch_size": config.train.batch_size,
    "bn_groups": config.model.bn_groups,
    "parameter_megabytes": sum(x.size * x.dtype.itemsize for x in leaves) / 1e6,
    **communication.summary(program.as_text(), jax.device_count()),
  }


def abstract_step(config: ConfigDict) -> tuple:
  """A recipe's (train step, state, batch), the last two as shapes: nothing is made."""
  mesh = sharding.make_mesh()
  method = make_method(config)
  key = jax.random.key(config.seed)
  optimizer = optim.make_optimizer(config.optim, lambda step: 1e-4)
  current = jax.eval_shape(lambda: state.create(method, optimizer, key, mesh))
  row = pipeline.empty_row(training_sampler(config))
  batch = {
    name: jax.ShapeDtypeStruct((config.train.batch_size, *array.shape), array.dtype)
    for name, array in row.items()
  }
  step = state.make_train_step(
    method, optimizer, key, mesh, accumulate_steps=config.train.accumulate_steps
  )
  return step, current, batch


def input_rate(config: ConfigDict, seconds: float) -> dict:
  """Sources per second of the input pipeline alone; None without the data set."""
  try:
    source = configured_source(config.data, "train")
  except UserError as error:
    return {"sources_per_second": None, "input_note": " ".join(str(error).split())}
  rate = throughput.input_rate(
    source,
    training_sampler(config),
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


def table(result: dict) -> str:
  """A result as aligned lines."""
  lines = []
  for name, value in result.items():
    if isinstance(value, dict):
      lines += [f"  {name}", *(f"    {k:22s}{100 * v:.2f} %" for k, v in value.items())]
      continue
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    lines.append(f"  {name:24s}{text}")
  return "\n".join(lines)


def _communicate(config, counts):
  for count in counts:
    if not count.isdecimal() or not int(count):
      raise UserError(
        f"--communication has {count!r}; give numbers of devices, such as 8,64,256"
      )
  if len(counts) > 1:  # a process has as many devices as it has started with
    again = [sys.executable, "-m", "motion_jax.benchmark", *sys.argv[1:]]
    for count in counts:  # of a flag that is given twice, the last counts
      again.append(f"--communication={count}")
      if code := subprocess.run(again).returncode:
        sys.exit(code)
    return
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", int(counts[0]))
  logs.to_console()
  command.use_compilation_cache()
  config = communication.scaled(config, int(counts[0]), _ROWS.value)
  result = communicated(config)
  print(json.dumps(result), flush=True)
  operations = result.pop("operations")
  print(table(result), file=sys.stderr)
  print(communication.table(operations), file=sys.stderr, flush=True)


def _median_seconds(function, count):
  times = []
  for _ in range(count + 1):
    began = time.monotonic()
    jax.block_until_ready(function())
    times.append(time.monotonic() - began)
  return statistics.median(times[1:])


if __name__ == "__main__":
  sys.exit(command.run(main, sys.argv))
