"""XLA's flags, which count only if they are set before JAX starts a backend."""

import logging
import os

import jaxlib

logger = logging.getLogger("motion_jax")

# Sums of more than 32,768 rows are wrong and some programs crash (jax#39103, jax#39257,
# jax#40412): XLA's own kernels instead of YNNPACK's.
_NO_YNN = "--xla_cpu_experimental_ynn_fusion_type="
_YNN_VERSIONS = ("0.10.2", "0.11.0")

_DETERMINISTIC = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")


def set_flags(*, deterministic: bool = False) -> None:
  """Adds to $XLA_FLAGS what is not there yet; the user's own values win.

  Args:
    deterministic: on GPUs, take kernels that repeat bit for bit, and the same ones in
      every start, instead of those that turned out fastest.
  """
  flags = [_NO_YNN] if jaxlib.__version__ in _YNN_VERSIONS else []
  flags += _DETERMINISTIC if deterministic else ()
  given = os.environ.get("XLA_FLAGS", "").split()
  names = {flag.partition("=")[0] for flag in given}
  given += [flag for flag in flags if flag.partition("=")[0] not in names]
  os.environ["XLA_FLAGS"] = " ".join(given)


def announce() -> None:
  """Logs $XLA_FLAGS, on which results depend bit for bit."""
  if os.environ.get("XLA_FLAGS"):
    logger.info("XLA_FLAGS: %s", os.environ["XLA_FLAGS"])
