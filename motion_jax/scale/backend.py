"""XLA's flags, which count only if they are set before JAX starts a backend."""

import importlib.util
import logging
import os
import pathlib

import jax

logger = logging.getLogger("motion_jax")

# Without it XLA keeps 3D convolutions channels first, for which cuDNN's kernels of
# bfloat16 transpose. A training step on an H200 then takes 1.40 (R-2D3D-18), 1.35
# (R3D-50) and 1.41 (C3D) times as long.
_CHANNELS_LAST = "--xla_gpu_force_conv_nhwc=true"
_DETERMINISTIC = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")
_NVIDIA = pathlib.Path("/dev/nvidiactl")  # its driver's
_PCI = pathlib.Path("/sys/bus/pci/devices")


def set_flags(*, deterministic: bool = False) -> None:
  """Adds to $XLA_FLAGS what is not there yet; the user's own values win.

  Where JAX will find an NVIDIA GPU, convolutions are laid out channels last.

  Args:
    deterministic: on GPUs, take kernels that repeat bit for bit, and the same ones in
      every start, instead of those that turned out fastest.
  """
  given = os.environ.get("XLA_FLAGS", "").split()
  names = {flag.partition("=")[0] for flag in given}
  wanted = [_CHANNELS_LAST] if _finds_nvidia() else []
  wanted += _DETERMINISTIC if deterministic else ()
  added = [flag for flag in wanted if flag.partition("=")[0] not in names]
  if added:
    os.environ["XLA_FLAGS"] = " ".join([*given, *added])


def announce() -> None:
  """Logs the devices, and $XLA_FLAGS, on which results depend bit for bit."""
  devices, count = jax.devices(), jax.process_count()
  together = f", {count} processes" if count > 1 else ""
  kind = devices[0].device_kind
  logger.info(
    "jax %s on %s: %d x %s%s",
    *(jax.__version__, jax.default_backend(), len(devices), kind, together),
  )
  if jax.default_backend() == "cpu" and (unused := _unused_accelerator()):
    logger.warning("%s", unused)
  if os.environ.get("XLA_FLAGS"):
    logger.info("XLA_FLAGS: %s", os.environ["XLA_FLAGS"])


def _unused_accelerator() -> str:
  """What to do about an accelerator of this machine that JAX does not use."""
  if _NVIDIA.exists():
    name, extra = "an NVIDIA GPU", "cuda13"
  elif any(map(_is_tpu, _PCI.glob("*"))):
    name, extra = "a TPU", "tpu"
  else:
    return ""
  asked = jax.config.jax_platforms
  fix = (
    f"JAX_PLATFORMS is {asked!r}: unset it"
    if asked
    else f"install JAX for it: pip install -c constraints.txt -e '.[{extra}]'"
  )
  return f"THIS MACHINE HAS {name.upper()}, AND JAX RUNS ON ITS CPU. {fix}"


def _is_tpu(device: pathlib.Path) -> bool:
  """Whether a PCI device is Google's, and neither a network card nor a disk."""
  try:
    vendor = (device / "vendor").read_text().strip()
    kind = (device / "class").read_text()[:4]
  except OSError:
    return False
  return vendor == "0x1ae0" and kind not in ("0x01", "0x02")


def _finds_nvidia() -> bool:
  """Whether JAX can start on an NVIDIA GPU; asking JAX would start it."""
  platforms = (jax.config.jax_platforms or "cuda").split(",")
  plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
  return (
    not {"cuda", "gpu"}.isdisjoint(platforms)
    and any(importlib.util.find_spec(name) for name in plugins)
    and _NVIDIA.exists()
  )
