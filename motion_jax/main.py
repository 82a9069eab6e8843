"""Command line: `python -m motion_jax.main --config=configs/mosi.py`.

Repeating a command resumes its run. Wrong input ends with one message and exit code 2.
"""

import pathlib
import sys
import tempfile

from absl import flags

from motion_jax import command, evaluate, logs, pictures, train
from motion_jax.config import UserError, choose

_CONFIG = command.define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; runs/<name> if ''.")

MODES = {
  "train": train.train,
  "evaluate": evaluate.evaluate,
  "evaluate_run": evaluate.evaluate_run,
  "visualize": pictures.visualize,
}


def main() -> None:
  """Trains, evaluates or draws as --config says."""
  logs.to_console()
  command.use_compilation_cache()
  command.keep_freed_memory()
  config = _CONFIG.value
  mode = MODES[choose("config.mode", config.mode, [*MODES])]
  workdir = pathlib.Path(_WORKDIR.value or pathlib.Path("runs") / config.name)
  if config.mode != "evaluate":
    _check_writable(workdir)
  mode(config, workdir)


def _check_writable(workdir):
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise UserError(
      f"cannot write to the working directory {workdir}: {error.strerror}; "
      "choose another --workdir"
    ) from error


if __name__ == "__main__":
  sys.exit(command.run(main, sys.argv))
