"""How long a recipe's training step takes, and how its time divides."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import jax
import optax
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from motion_jax.costs.measures import built, counted, example_batch
from motion_jax.costs.roofline import Peak
from motion_jax.models.conv import resolve_lowering
from motion_jax.models.precision import compute_dtype
from motion_jax.scale import sharding


def measure(
  config: ConfigDict, steps: int, *, limits: Peak | None = None, trace: str = ""
) -> dict:
  """Times a recipe's training step on generated pixels.

  Args:
    config: a whole config.
    steps: timed repetitions, 1 or more, after one that is not; medians are reported.
    limits: of a device, for `share_of_peak`; None: without it.
    trace: folder for a profile of the steps; '': none.

  Returns:
    What was run, what `measures.counted` tells, and

      step_seconds, step_seconds_min_max, clips_per_second
      stage_seconds: of what can run by itself, `pretext` (the networks' inputs and
        labels), `loss` (pretext and forward pass, without a gradient) and `update`
        (optimiser and momentum networks). A step of several parts runs the first two
        once per part; these are the times of all parts.
      stage_seconds_by_difference: `forward` is loss - pretext, `backward` the step -
        loss - update. Within the step they overlap and share work, so that these are
        estimates.
      pretext_share: of the step.
      compile_seconds: tracing included, nothing from a cache.
      teraflops_per_step, teraflops_per_second: of one device, operations as written.
      teraflops_compiled, gigabytes_compiled: of one device, as the compiler counts
        operations and bytes accessed: the body of a loop once, calls of libraries
        (cuDNN) not at all.
      memory_gigabytes: arguments and temporaries of one device.
      share_of_peak: of the arithmetic; also of float32 that of bfloat16.
  """
  mesh, key = sharding.make_mesh(), jax.random.key(config.seed)
  parts = built(config, mesh, key)
  rows, current = example_batch(config), parts.create()
  batch = sharding.shard_batch(mesh, rows)
  began = time.monotonic()
  with without_cache():
    compiled = parts.step.lower(current, batch).compile()
  compile_seconds = time.monotonic() - began
  counts = counted(parts.step, current, batch)

  def step():
    nonlocal current
    current, loss = compiled(current, batch)
    return loss

  times = _seconds(step, steps, trace)
  seconds = statistics.median(times)
  pieces = config.train.accumulate_steps
  piece = {name: array[: len(array) // pieces] for name, array in rows.items()}
  piece = sharding.shard_batch(mesh, piece)
  stages = _stage_seconds(parts, mesh, current, piece, pieces, key, steps)
  clips = config.train.batch_size * parts.method.clips_per_example
  teraflops = counts["teraflops_as_written"] / mesh.size
  return {
    "config": config.name,
    "network": config.model.name,
    "lowering": resolve_lowering(config.model.lowering),
    "dtype": str(compute_dtype(config.model.dtype)),
    "jax": jax.__version__,
    "devices": f"{mesh.size} x {jax.devices()[0].device_kind}",
    "clips_per_step": clips,
    "step_seconds": seconds,
    "step_seconds_min_max": [min(times), max(times)],
    "clips_per_second": clips / seconds,
    "stage_seconds": stages,
    "stage_seconds_by_difference": {
      "forward": stages["loss"] - stages["pretext"],
      "backward": seconds - stages["loss"] - stages["update"],
    },
    "pretext_share": stages["pretext"] / seconds,
    "compile_seconds": compile_seconds,
    "teraflops_per_step": teraflops,
    "teraflops_per_second": teraflops / seconds,
    **({"share_of_peak": teraflops / seconds / limits.teraflops} if limits else {}),
    **_as_compiled(compiled),
    **counts,
  }


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
  """Programs that are compiled inside come from no cache and go into none."""
  before = jax.config.jax_enable_compilation_cache
  _use_cache(False)
  try:
    yield
  finally:
    _use_cache(before)


def _stage_seconds(parts, mesh, current, piece, pieces, key, steps):
  """Seconds of the stages that can run by themselves, see `measure`."""
  params, aux, step = current.params, current.aux, current.step
  method = parts.method
  pretext, loss = (jax.jit(sharding.on(mesh, f)) for f in (method.pretext, method.loss))
  update = jax.jit(partial(_update, parts.method, parts.optimizer))
  stages = {
    "pretext": lambda: pretext(piece, key, step),
    "loss": lambda: loss(params, aux, piece, key, step),
    # Any numbers may stand for the gradients.
    "update": lambda: update(current, params),
  }
  seconds = {
    name: statistics.median(_seconds(run, steps)) for name, run in stages.items()
  }
  for name in ("pretext", "loss"):
    seconds[name] *= pieces
  return seconds


def _update(method, optimizer, current, grads):
  updates, opt_state = optimizer.update(grads, current.opt_state, current.params)
  params = optax.apply_updates(current.params, updates)
  return params, opt_state, method.after_update(params, current.aux, current.step)


def _as_compiled(compiled):
  cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
  size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  return {
    "teraflops_compiled": cost.get("flops", 0.0) / 1e12,
    "gigabytes_compiled": cost.get("bytes accessed", 0.0) / 1e9,
    "memory_gigabytes": size / 1e9,
  }


def _use_cache(enabled):
  jax.config.update("jax_enable_compilation_cache", enabled)
  compilation_cache.reset_cache()  # or what was decided at the first use stays


def _seconds(function: Callable, count: int, trace: str = "") -> list[float]:
  """Runs a function once untimed, and then `count` times: the seconds of each."""
  jax.block_until_ready(function())
  times = []
  with jax.profiler.trace(trace) if trace else contextlib.nullcontext():
    for _ in range(count):
      began = time.monotonic()
      jax.block_until_ready(function())
      times.append(time.monotonic() - began)
  return times
