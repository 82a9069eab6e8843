"""Command line: `python -m motion_jax.main --config=configs/mosi.py`.

Repeating a command resumes its run. Wrong input ends with one message and exit code 2.
"""

import errno
import logging
import os
import pathlib
import sys
import tempfile

import jax
from absl import flags
from ml_collections import config_flags

from motion_jax import logs
from motion_jax.config import UserError, choose

logger = logging.getLogger("motion_jax")

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; runs/<name> if ''.")
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the other processes of a pod (jax.distributed)."
)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: list[str]) -> int:
  """Runs the program; returns its exit code."""
  try:
    _parse(argv)
    if _DISTRIBUTED.value:
      jax.distributed.initialize()
    logs.to_console()
    use_compilation_cache()
    _run()
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except OSError as error:
    if error.errno not in _DISK_FULL:
      raise
    print(f"error: {error}; free some space and run it again", file=sys.stderr)
    return 2
  return 0


def use_compilation_cache() -> None:
  """Keeps compiled programs in $JAX_COMPILATION_CACHE_DIR or the user cache folder."""
  if not jax.config.jax_compilation_cache_dir:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    path = pathlib.Path(home) / "motion_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _parse(argv):
  try:
    rest = flags.FLAGS(argv)
    if _CONFIG.value is None:
      raise UserError("--config is missing; try --config=configs/mosi.py")
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
    raise UserError(str(e).strip("'\"")) from e
  if len(rest) > 1:
    raise UserError(f"unexpected arguments {rest[1:]}; every option starts with --")


def _run():
  from motion_jax import evaluate, train

  config = _CONFIG.value
  modes = {"train": train.train, "evaluate": evaluate.evaluate}
  mode = modes[choose("config.mode", config.mode, [*modes])]
  workdir = pathlib.Path(_WORKDIR.value or pathlib.Path("runs") / config.name)
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
  sys.exit(main(sys.argv))
