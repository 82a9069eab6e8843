"""Speed of a recipe: `python -m motion_jax.benchmark --config=configs/mosi.py:hmdb51`.

Times the whole training step on generated pictures, its stages, and, where the recipe's
data is at hand, the input pipeline; counts the operations of the stages, and tells the
share of the device's peak. One JSON object per measurement goes to stdout, a table to
stderr.

  --compare=native,folded   measures both lowerings of the convolutions
  --roofline                operations per byte of the compiled step, and the rate that
                            the device can reach with them
  --peak=TFLOPS,GB/s        of one device, where it is unknown or another is meant
  --scaling                 on 1, 2, 4 ... of this machine's CPU devices or GPUs, each
                            with as many rows of the batch as on all of them
  --trace=DIR               leaves a profile of the timed steps for TensorBoard or XProf
  --count_only              compiles and runs nothing: for recipes too large for this
                            machine

`--input` measures the input pipeline alone: its rate, processor time and bytes of a
source; and, with `--topology` or `--need=SOURCES_PER_SECOND` of a host's devices,
whether the host keeps up, if it has as many cores as this one or `--host_cores=N`.

`--communication=8,64,256` runs nothing either, but compiles the step for so many
devices that exist in name only, each with as many rows of the batch, and tells what
they send each other. Sizes are of float32, the convolutions those of accelerators.

`--topology=v5e:4x4` compiles the step for TPUs or GPUs that need not be there, with
their own compilers: memory and whether it fits, the compiler's estimate of the time,
its most expensive scopes, communication. TPU slices have libtpu's names (pip install -e
'.[tpu]'), GPUs are h100:8, h200:8, a100:8 ('.[cuda13]'). With `--fit` it is compiled
until the largest batch is found, and how the recipe's own fits. No data are opened.
"""

import json
import logging
import os
import subprocess
import sys

import jax
from absl import flags

from motion_jax import logs
from motion_jax.commands import command
from motion_jax.config import UserError, choose, local_path
from motion_jax.costs import ahead, communication, roofline
from motion_jax.costs.feed import in_words, input_costs, input_rate, verdict
from motion_jax.costs.fit import fit
from motion_jax.costs.measures import communicated, scaled, sized, stages
from motion_jax.costs.table import table
from motion_jax.costs.timing import measure
from motion_jax.costs.topology import Topology
from motion_jax.data.absent import with_classes
from motion_jax.models.conv import LOWERINGS
from motion_jax.training.plan import check_batch

logger = logging.getLogger("motion_jax")

_CONFIG = command.define_config_flag()
flags.adopt_module_key_flags(command)  # --help shows them, too
_STEPS = flags.DEFINE_integer(
  "steps", 10, "Timed steps; medians are reported.", lower_bound=1
)
_COMPARE = flags.DEFINE_list(
  "compare",
  [],
  "Convolution lowerings to compare: native, folded; the recipe's if ''.",
)
_ROOFLINE = flags.DEFINE_bool(
  "roofline", False, "Tell operations per byte and what the device can make of them."
)
_PEAK = flags.DEFINE_list(
  "peak", [], "TFLOP/s and GB/s of one device; those of known ones if ''."
)
_SCALING = flags.DEFINE_bool("scaling", False, "Measure on 1, 2, 4 ... devices.")
_TRACE = flags.DEFINE_string("trace", "", "Folder for a profile of the timed steps.")
_COUNT_ONLY = flags.DEFINE_bool(
  "count_only", False, "Only count the operations of each stage of the step."
)
_COMMUNICATION = flags.DEFINE_list(
  "communication", [], "Numbers of devices for which to tell what they communicate."
)
_ROWS = flags.DEFINE_integer(
  "rows_per_device",
  0,
  "Of the batch. 0: for --communication the recipe's on 8; for --topology all of it, "
  "or the next larger number that the devices divide.",
  lower_bound=0,
)
_TOPOLOGY = flags.DEFINE_string(
  "topology",
  "",
  "Devices to compile for, such as v5e:4x4, h100:8; they need not exist.",
)
_FIT = flags.DEFINE_bool("fit", False, "Find the batch that fits, with --topology.")
_PROGRAM = flags.DEFINE_string(
  "program", "", "File for the text of the compiled program, with --topology."
)
_INPUT_SECONDS = flags.DEFINE_float("input_seconds", 5.0, "Time for the input rate.")
_INPUT = flags.DEFINE_bool("input", False, "Measure the input pipeline alone.")
_NEED = flags.DEFINE_float(
  "need",
  0.0,
  "Sources per second that a host's devices take, for --input.",
  lower_bound=0.0,
)
_HOST_CORES = flags.DEFINE_integer("host_cores", 0, "For --input; 0: as here.")


def main() -> None:
  config = _CONFIG.value
  limits = _checked(config)
  config = with_classes(config)
  if _INPUT.value:
    _feed(config)
    return
  if _TOPOLOGY.value:
    _compile(config, _TOPOLOGY.value)
    return
  if _COMMUNICATION.value:
    _communicate(config, _COMMUNICATION.value)
    return
  if _SCALING.value:
    _scale()
    return
  logs.to_console()
  command.use_compilation_cache()
  command.keep_freed_memory()
  if _COUNT_ONLY.value:
    _show({"config": config.name, **stages(config)})
    return
  kind = jax.devices()[0].device_kind
  limits = limits or roofline.peak(kind)
  if limits is None:
    logger.info("peak of %s unknown; give --peak=TFLOPS,GB/s", kind)
  check_batch(config, jax.device_count())
  rate = input_rate(config, _INPUT_SECONDS.value)
  for lowering in _COMPARE.value or [config.model.lowering]:
    config.model.lowering = lowering
    result = measure(config, _STEPS.value, limits=limits, trace=_TRACE.value) | rate
    if rate["sources_per_second"]:
      seconds = config.train.batch_size / rate["sources_per_second"]
      result["stage_seconds"]["input"] = seconds
      result["input_rate_to_need"] = ratio = result["step_seconds"] / seconds
      result["input"] = in_words(ratio)
    if _ROOFLINE.value:
      result |= _roofline(limits, result)
    _show(result)


def _show(result):
  print(json.dumps(result), flush=True)
  print(table(result), file=sys.stderr, flush=True)


def _show_with_operations(result):
  print(json.dumps(result), flush=True)
  operations = result.pop("operations", [])
  print(table(result), file=sys.stderr, flush=True)
  print(communication.table(operations), file=sys.stderr, flush=True)


def _checked(config):
  """Raises UserError for wrong flags before anything takes time; limits of --peak."""
  for section in ("method", "model", "optim", "train"):
    if section not in config:
      raise UserError(
        f"{config.name!r} has no section {section!r}: it trains nothing whose steps "
        "could be measured; give a config that does, such as configs/mosi.py"
      )
  for lowering in _COMPARE.value:
    choose("--compare lowering", lowering, LOWERINGS)
  if _FIT.value and not _TOPOLOGY.value:
    raise UserError("--fit needs the devices: give --topology=v5e:4x4, h100:8, ...")
  return roofline.given(_PEAK.value) if _PEAK.value else None


def _roofline(limits, result):
  counted = result["teraflops_compiled"] / result["teraflops_per_step"]
  if result["gigabytes_compiled"] <= 0:
    logger.warning("no roofline: the compiler does not count bytes here")
    return {"operations_per_byte": None}
  if counted < 0.5:
    logger.warning(
      "no roofline: the compiler counts %.0f %% of the operations, the body of a loop "
      "once and calls of libraries not at all",
      100 * counted,
    )
    return {"operations_per_byte": None}
  return roofline.compared(
    limits,
    intensity=1e3 * result["teraflops_compiled"] / result["gigabytes_compiled"],
    teraflops_per_second=result["teraflops_per_second"],
  )


def _compile(config, name):
  """Compiles for devices that need not be there."""
  topology, batch_size = Topology(name), config.train.batch_size
  logs.to_console()
  devices, parts = topology.mesh.size, config.train.accumulate_steps
  rows = _ROWS.value or -(-batch_size // (devices * parts)) * parts
  if rows * devices != batch_size:
    changed = sized(config, rows * devices)
    logger.warning("%d rows on each of %d devices: %s", rows, devices, changed)
    config.update_from_flattened_dict(changed)
  if _FIT.value:
    found = fit(topology, config)
    print(json.dumps(found), flush=True)
    found.pop("tries")  # told as they came
    print(table(found), file=sys.stderr, flush=True)
    return
  check_batch(config, devices)
  config = ahead.prepared(config)
  compiled = ahead.compile_for(topology, config)
  if _PROGRAM.value:
    local_path(_PROGRAM.value).write_text(compiled.text)
  _show_with_operations(ahead.report(topology, config, compiled))


def _feed(config):
  """Measures the input of this machine for devices that need not be there."""
  logs.to_console()
  need, topology = _NEED.value, Topology(_TOPOLOGY.value) if _TOPOLOGY.value else None
  if topology:
    check_batch(config, topology.mesh.size)
  found = {"config": config.name, **input_costs(config, _INPUT_SECONDS.value)}
  if topology:
    config = ahead.prepared(config)
    step = ahead.report(topology, config, ahead.compile_for(topology, config))
    found |= ahead.expected(topology, step)
    need = config.train.batch_size / topology.hosts / found["step_seconds"]
  _show(found | (verdict(found, need, _HOST_CORES.value) if need else {}))


def _communicate(config, counts):
  for count in counts:
    if not count.isdecimal() or not int(count):
      raise UserError(
        f"--communication has {count!r}; give numbers of devices, such as 8,64,256"
      )
  if len(counts) > 1:
    for count in counts:
      _again(f"--communication={count}")
    return
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", int(counts[0]))
  logs.to_console()
  command.use_compilation_cache()
  config = scaled(config, int(counts[0]), _ROWS.value)
  check_batch(config, int(counts[0]))
  _show_with_operations(communicated(config))


def _scale():
  """Measures in processes that see the first devices only."""
  # Asked in a process of its own, since whoever asks takes the memory of a GPU.
  question = "import jax; print(jax.default_backend(), jax.local_device_count())"
  answer = subprocess.check_output([sys.executable, "-c", question], text=True).split()
  kind, most = answer[0], int(answer[1])
  if kind == "tpu":
    raise UserError(
      "--scaling cannot hide TPU cores; run it on slices of several sizes"
    )
  config, given = _CONFIG.value, os.environ.get("CUDA_VISIBLE_DEVICES")
  names = given.split(",") if given else [str(index) for index in range(most)]
  rows = config.train.batch_size // most
  if not rows:
    raise UserError(
      f"train.batch_size={config.train.batch_size} is less than the {most} devices"
    )
  counts = [1 << power for power in range(most.bit_length()) if 1 << power < most]
  for count in [*counts, most]:
    sizes = sized(config, count * rows)
    _again(
      "--noscaling",
      *(f"--config.{key}={value}" for key, value in sizes.items()),
      CUDA_VISIBLE_DEVICES=",".join(names[:count]),
      JAX_NUM_CPU_DEVICES=str(count),
    )


def _again(*arguments, **environment):
  """Runs this command anew: a process keeps the devices that it has started with."""
  # Of a flag that is given twice, the last counts.
  command_line = [sys.executable, "-m", "motion_jax.benchmark", *sys.argv[1:]]
  again = subprocess.run([*command_line, *arguments], env=os.environ | environment)
  if again.returncode:
    sys.exit(again.returncode)


if __name__ == "__main__":
  sys.exit(command.run(main, sys.argv))
