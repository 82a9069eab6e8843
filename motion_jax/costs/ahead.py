"""Programs for accelerators that are not there: compiled, read, never run.

The compilers of TPUs (libtpu) and GPUs (XLA) run on any x86-64 Linux machine. They get
the recipe's own train step, with its shapes, over devices by description.
"""

import dataclasses
import re
import time

import jax
from ml_collections import ConfigDict

from motion_jax.config import UserError, steps_of
from motion_jax.costs import communication, cycles
from motion_jax.costs.flops import stage_flops
from motion_jax.costs.measures import abstract_step
from motion_jax.costs.timing import without_cache
from motion_jax.costs.topology import Topology
from motion_jax.data.absent import absent_source
from motion_jax.logs import long_work

# libtpu names what the temporaries take, older ones the whole program.
_REFUSAL = re.compile(
  r"(?:Used |required for [\w ]+\()([\d.]+)([KMGT]?)\)? (?:of|exceeds available HBM) "
  r"\(?([\d.]+)([KMGT]?)"
)
_UNITS = {"": 2**-30, "K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2**10}
_SCOPES = 10  # the most expensive ones are told


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What became of a train step.

  Attributes:
    seconds: that compiling took.
    gibibytes: of memory of one device, by use; `needed` is what it takes in all, None
      where a compiler that gives up does not tell it.
    fits: into the memory of a device.
    text: the optimised program; '' if it does not fit.
    costs: as the compiler counts.
  """

  seconds: float
  gibibytes: dict[str, float | None]
  fits: bool
  text: str = ""
  costs: dict[str, float] = dataclasses.field(default_factory=dict)


def prepared(config: ConfigDict) -> ConfigDict:
  """A copy of a recipe in which 'auto' is what it means on TPUs and GPUs."""
  config = config.copy_and_resolve_references()
  for key, value in (("dtype", "bfloat16"), ("lowering", "native")):
    if config.model[key] == "auto":
      config.model[key] = value
  return config


def compile_for(topology: Topology, config: ConfigDict) -> Compiled:
  """Compiles the train step of a recipe, as `prepared` gives it."""
  step, current, batch = abstract_step(config, topology.mesh)
  began, note = time.monotonic(), "of a paper's recipe 3 to 30 minutes on two cores"
  try:
    with without_cache(), long_work(f"compiling for {topology.name}", note):
      program = step.lower(current, batch).compile(compiler_options=topology.options)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    seconds = time.monotonic() - began
    return Compiled(seconds, sizes_of_refusal(str(error), topology.capacity), False)
  memory = program.memory_analysis()
  used = {
    "arguments": memory.argument_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "outputs": memory.output_size_in_bytes,
    "aliased": -memory.alias_size_in_bytes,
  }
  found = {name: size / 2**30 for name, size in used.items()}
  found |= {"needed": sum(found.values()), "capacity": topology.capacity}
  return Compiled(
    seconds=time.monotonic() - began,
    gibibytes=found,
    fits=found["needed"] <= topology.capacity,
    text=program.as_text(),
    costs=program.cost_analysis() or {},
  )


def sizes_of_refusal(message: str, capacity: float) -> dict[str, float | None]:
  """GiB needed at least, and there, as a compiler says that has run out of memory."""
  found = _REFUSAL.search(message)
  if not found:
    return {"needed": None, "capacity": capacity}
  pairs = (found[1], found[2]), (found[3], found[4])
  needed, there = (float(number) * _UNITS[unit] for number, unit in pairs)
  return {"needed": needed, "capacity": there}


def report(topology: Topology, config: ConfigDict, compiled: Compiled) -> dict:
  """Tells what a recipe's step takes of one device.

  Args:
    topology: the devices.
    config: the recipe, as it was compiled.
    compiled: its step.

  Returns:
    The recipe's sizes, and

      fits, memory_gibibytes: arguments, temporaries and outputs less what these share
        with arguments (`aliased`), against the capacity. Of GPUs without the
        workspaces of cuDNN, and the capacity is the share that JAX takes.
      teraflops_per_step: operations as written, loops as often as they run.
      least_step_seconds: these at the peak rate of the device.
      teraflops_compiled, gigabytes_compiled: as the compiler counts operations and
        bytes accessed: the body of a loop once; of GPUs nothing.
      compilers_estimate: of TPUs, from the cycles that the compiler expects of every
        operation; `days` are those of the whole training, without evaluations.
      sent_megabytes, operations: see `communication.summary`.
      scopes: the most expensive ones, as shares of the estimate; of GPUs of the
        operations as written.
  """
  devices, rows = topology.mesh.size, config.train.batch_size
  found = {
    "config": config.name,
    "network": f"{config.model.name}, width {config.model.width}",
    "topology": f"{topology.name}: {devices} x {topology.kind}",
    "dtype": config.model.dtype,
    "lowering": config.model.lowering,
    "batch_size": rows,
    "rows_per_device": rows / devices,
    "bn_groups": config.model.bn_groups,
    "accumulate_steps": config.train.accumulate_steps,
    "remat": config.model.remat,
    "compiler": f"jax {jax.__version__}, {topology.compiler}",
    "compile_seconds": compiled.seconds,
    "fits": compiled.fits,
    "memory_gibibytes": compiled.gibibytes,
  }
  if not compiled.text:
    return found
  flops = stage_flops(*abstract_step(config, topology.mesh))
  teraflops = sum(flops.values()) / devices / 1e12
  found |= {
    "teraflops_per_step": teraflops,
    "teraflops_compiled": compiled.costs.get("flops", 0.0) / 1e12,
    "gigabytes_compiled": compiled.costs.get("bytes accessed", 0.0) / 1e9,
  }
  found["least_step_seconds"] = teraflops / topology.limits.teraflops
  scopes = cycles.by_scope(compiled.text)
  if scopes and topology.limits.gigahertz:
    seconds = sum(scopes.values()) / topology.limits.gigahertz / 1e9
    found["compilers_estimate"] = {
      "megacycles": sum(scopes.values()) / 1e6,
      "step_seconds": seconds,
      "share_of_peak": teraflops / seconds / topology.limits.teraflops,
      "days": _days(config, seconds),
    }
  sent = communication.summary(compiled.text, devices)
  return found | {"scope_shares": _shares(scopes or flops)} | sent


def expected(topology: Topology, report: dict) -> dict:
  """The time of a step as far as it is known, as `step_seconds`, and what it is.

  Raises:
    UserError: if the step does not fit.
  """
  if not report["fits"]:
    raise UserError(
      f"the step does not fit into {topology.name}: --fit tells what does"
    )
  if "compilers_estimate" in report:
    seconds = report["compilers_estimate"]["step_seconds"]
    return {"step_seconds": seconds, "step_seconds_are": "the compiler's estimate"}
  words = "at the peak rate of the devices, which no step reaches"
  return {"step_seconds": report["least_step_seconds"], "step_seconds_are": words}


def _shares(scopes, most=_SCOPES):
  total = sum(scopes.values())
  ranked = sorted(scopes.items(), key=lambda item: -item[1])[:most]
  return {name or "rest": size / total for name, size in ranked}


def _days(config, seconds):
  """Days of a training of steps this long; None if its length is not known."""
  examples = len(absent_source(config.data))
  if not examples and re.search("epoch", config.train.duration):
    return None
  lengths = dict(examples=examples, batch_size=config.train.batch_size)
  return steps_of(config.train.duration, **lengths) * seconds / 86400
