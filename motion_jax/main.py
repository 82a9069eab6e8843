"""Command line: `python -m motion_jax.main --config=configs/mosi.py`.

Repeating a command resumes its run. Wrong input ends with one message and exit code 2.
"""

import pathlib
import sys
import tempfile

from absl import flags
from flax.traverse_util import flatten_dict

from motion_jax import evaluate, logs, pictures, train
from motion_jax.commands import command, processes
from motion_jax.config import UserError, choose, local_path
from motion_jax.data import storage
from motion_jax.data.storage import StorageError
from motion_jax.scale import backend, hosts
from motion_jax.training import starting_point

_CONFIG = command.define_config_flag()
flags.adopt_module_key_flags(command)  # --help shows them, too
flags.adopt_module_key_flags(processes)
_PRINT = flags.DEFINE_bool("print_config", False, "Print the settings and end.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; runs/<name> if ''.")

MODES = {
  "train": train.train,
  "evaluate": evaluate.evaluate,
  "visualize": pictures.visualize,
}


def main() -> None:
  """Trains, evaluates or draws as --config says."""
  config = _CONFIG.value
  if _PRINT.value:
    for name, value in flatten_dict(config.to_dict(), sep=".").items():
      print(f"{name}: {value!r}")
    return
  mode = MODES[choose("config.mode", config.mode, [*MODES])]
  processes.join(stops_on_sigterm=mode is train.train)
  logs.to_console()
  backend.announce()
  command.use_compilation_cache()
  command.keep_freed_memory()
  # Shells leave the ~ of --workdir=~/run as it is.
  workdir = local_path(_WORKDIR.value or pathlib.Path("runs") / config.name)
  is_new = not hosts.largest((workdir / "checkpoints").is_dir())
  if is_new and "init_from" in config and (config.init_from or mode is train.train):
    starting_point.check(config.init_from)  # before a folder is made or data read
  # Of a training's config it is a folder that is there already, or else a mistake.
  if config.mode != "evaluate" or "method" not in config:
    _check_writable(workdir)
    hosts.check_shared(workdir)
  mode(config, workdir)


def _check_writable(workdir):
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    if storage.failing(error):
      raise StorageError(
        f"cannot write to the working directory {workdir}: {error.strerror}. The "
        "storage fails: when it is back, the same command goes on"
      ) from error
    raise UserError(
      f"cannot write to the working directory {workdir}: {error.strerror}; "
      "choose another --workdir"
    ) from error


if __name__ == "__main__":
  sys.exit(command.run(main, sys.argv))
