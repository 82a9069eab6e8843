"""What all commands share: flags, wrong input as one message, the compilation cache."""

import ctypes
import os
import pathlib
import sys
import traceback
from collections.abc import Callable

import jax
from absl import app, flags
from ml_collections import config_flags

from motion_jax import logs
from motion_jax.commands import wrong_flags
from motion_jax.config import UserError
from motion_jax.data import media
from motion_jax.data.sources import StorageFault
from motion_jax.data.storage import StorageError
from motion_jax.scale import backend, compiled, hosts
from motion_jax.training import interrupts

_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
_DETERMINISTIC = flags.DEFINE_bool(
  "deterministic",
  False,
  "On GPUs, kernels that repeat bit for bit, in every start the same; slower.",
)


def define_config_flag():
  """Defines --config; returns its holder."""
  return config_flags.DEFINE_config_file(
    "config",
    None,
    "A file of configs/, and after a colon its words: configs/mosi.py:kinetics400. "
    "--config.SECTION.KEY=VALUE changes a setting of it.",
  )


def run(program: Callable[[], None], argv: list[str]) -> int:
  """Parses the flags and runs a program.

  Args:
    program: takes nothing; its flags are absl's.
    argv: the command line.

  Returns:
    The exit code: 0, or after a message 2 when the input was wrong or the disk full,
    75 ("try again") when storage has failed for minutes. One of several processes does
    not return after an error, but ends (`hosts.end_process`).
  """
  media.set_up_opencv()
  try:
    _parse(argv)
    backend.set_flags(deterministic=_DETERMINISTIC.value)
    with interrupts.answered(_answer):
      program()
  except UserError as error:
    return _end(2, f"error: {error}")
  except (StorageError, StorageFault) as error:
    return _end(_TRY_AGAIN, f"error: {error}")
  except KeyboardInterrupt:
    return _end(130, interrupts.GOES_ON)
  except Exception as error:
    if logs.is_full_disk(error):
      return _end(2, f"error: {error}; free some space and run it again")
    if not jax.distributed.is_initialized():
      raise
    if not hosts.is_lost_contact(error):
      traceback.print_exc()
      return _end(1, "")
    reason = str(error).splitlines()[0]
    return _end(
      1,
      f"error: another process has ended or cannot be reached ({reason}); its log "
      "tells why. The same command on all hosts goes on from the last checkpoint",
    )
  return 0


def use_compilation_cache() -> None:
  """Keeps compiled programs in $JAX_COMPILATION_CACHE_DIR or the user cache folder."""
  if not jax.config.jax_compilation_cache_dir:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    path = pathlib.Path(home) / "motion_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(path))
  # Small programs, too, which are many: a second start of configs/mosi.py:smoke takes
  # 29 instead of 42 s of processor time (once each, on a busy machine).
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  compiled.replace_damaged(pathlib.Path(jax.config.jax_compilation_cache_dir))


def keep_freed_memory() -> None:
  """Lets the C library keep freed memory instead of returning it to the system.

  XLA's CPU runtime takes its workspace anew in every step, and glibc maps large blocks
  from the system and unmaps them each time: 94,000 page faults per step of the small
  MoSI recipe, 9,000 with this, and a tenth off its time. No effect without glibc.
  """
  if os.name != "posix" or jax.default_backend() != "cpu":
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return
  m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # of glibc's malloc.h
  mallopt(m_mmap_max, 0)
  mallopt(m_trim_threshold, 2**31 - 1)
  mallopt(m_arena_max, 1)


def _answer():
  text = "stopping as soon as what is computed or compiled is done"
  print(f"{text}; press Ctrl-C again to stop at once", file=sys.stderr, flush=True)


def _end(code, text):
  if text and jax.distributed.is_initialized():
    text = f"process {jax.process_index()}: {text}"
  print(text, file=sys.stderr)
  return hosts.end_process(code)


def _parse(argv):
  try:
    app.define_help_flags()
    rest = flags.FLAGS(argv)
    if "config" in flags.FLAGS:
      if flags.FLAGS.config is None:
        raise UserError("--config is missing; try --config=configs/mosi.py")
      flags.FLAGS.config.to_dict()  # raises what went wrong when the file was loaded
  except SystemExit:  # --help, which absl ends with 1
    sys.exit(0)
  except UserError:
    raise
  except Exception as error:
    mistake = wrong_flags.explained(error, argv)
    if mistake is None:
      raise
    raise mistake from error
  if len(rest) > 1:
    raise UserError(f"unexpected arguments {rest[1:]}; every option starts with --")
