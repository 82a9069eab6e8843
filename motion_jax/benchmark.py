"""Speed of a recipe: `python -m motion_jax.benchmark --config=configs/mosi.py:hmdb51`.

Times the whole training step on generated pictures, the making of its pretext inputs
alone, and, where the recipe's data is at hand, the input pipeline; counts the
operations of the step's stages; on known GPUs and TPUs it is compared with the device's
peak and roofline. One JSON object per measurement goes to stdout, a table to stderr.

  --compare=native,folded   measures both lowerings of the convolutions
  --scaling                 on 1, 2, 4 ... of this machine's CPU devices or GPUs, each
                            with as many rows of the batch as on all of them
  --trace=DIR               leaves a profile of the timed steps for TensorBoard or XProf
  --count_only              compiles and runs nothing: for recipes too large for this
                            machine

`--communication=8,64,256` runs nothing either, but compiles the step for so many
devices that exist in name only, each with as many rows of the batch, and tells what
they send each other. Sizes are of float32, the convolutions those of accelerators.
"""

import json
import os
import subprocess
import sys

import jax
from absl import flags

from motion_jax import command, logs
from motion_jax.config import UserError
from motion_jax.costs import communication
from motion_jax.costs.measures import (
  communicated,
  input_rate,
  measure,
  scaled,
  sized,
  stages,
)

_CONFIG = command.define_config_flag()
_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps; medians are reported.")
_COMPARE = flags.DEFINE_list(
  "compare",
  [],
  "Convolution lowerings to compare: native, folded; the recipe's if ''.",
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
  "Of the batch, for --communication; 0: the recipe's on 8.",
  lower_bound=0,
)
_INPUT_SECONDS = flags.DEFINE_float("input_seconds", 5.0, "Time for the input rate.")


def main() -> None:
  config = _CONFIG.value
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
    result = {"config": config.name, **stages(config)}
    print(json.dumps(result), flush=True)
    print(table(result), file=sys.stderr, flush=True)
    return
  rate = input_rate(config, _INPUT_SECONDS.value)
  for lowering in _COMPARE.value or [config.model.lowering]:
    config.model.lowering = lowering
    result = measure(config, _STEPS.value, _TRACE.value) | stages(config) | rate
    if rate["sources_per_second"]:
      need = config.train.batch_size / result["step_seconds"]
      result["input_rate_to_need"] = rate["sources_per_second"] / need
    print(json.dumps(result), flush=True)
    print(table(result), file=sys.stderr, flush=True)


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
  if len(counts) > 1:
    for count in counts:
      _again(f"--communication={count}")
    return
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", int(counts[0]))
  logs.to_console()
  command.use_compilation_cache()
  config = scaled(config, int(counts[0]), _ROWS.value)
  result = communicated(config)
  print(json.dumps(result), flush=True)
  operations = result.pop("operations")
  print(table(result), file=sys.stderr)
  print(communication.table(operations), file=sys.stderr, flush=True)


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
