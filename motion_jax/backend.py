"""XLA's flags, which count only if they are set before JAX starts a backend."""

import logging
import os

logger = logging.getLogger("motion_jax")

_DETERMINISTIC = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")


def set_flags(*, deterministic: bool = False) -> None:
  """Adds to $XLA_FLAGS what is not there yet; the user's own values win.

  Args:
    deterministic: on GPUs, take kernels that repeat bit for bit, and the same ones in
      every start, instead of those that turned out fastest.
  """
  if not deterministic:
    return
  given = os.environ.get("XLA_FLAGS", "").split()
  names = {flag.partition("=")[0] for flag in given}
  given += [flag for flag in _DETERMINISTIC if flag.partition("=")[0] not in names]
  os.environ["XLA_FLAGS"] = " ".join(given)


def announce() -> None:
  """Logs $XLA_FLAGS, on which results depend bit for bit."""
  if os.environ.get("XLA_FLAGS"):
    logger.info("XLA_FLAGS: %s", os.environ["XLA_FLAGS"])
