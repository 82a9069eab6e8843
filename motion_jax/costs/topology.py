"""Accelerators that are not there, as their compilers know them by description."""

import importlib.metadata
import os
import re

import jax
from jax.experimental import topologies

from motion_jax.config import UserError
from motion_jax.costs import roofline
from motion_jax.scale import sharding

_EXAMPLES = "v5e:4x4, v6e:8x8, v4:2x2x1, v5p:2x2x2; of GPUs h100:8, h200:8, a100:8"
# Two cores of a chip are one device of these, as on the machines themselves.
_MEGACORE = ("v4", "v5p")
_GPUS_OF_A_HOST = 8
_COMPILERS = {"tpu": ("libtpu", "tpu"), "gpu": ("jax-cuda13-plugin", "cuda13")}
# Of GPUs, from NVIDIA's data sheets and the CUDA C++ programming guide's table of
# compute capabilities. Sizes in bytes.
_HOPPER = dict(major=9, shared_core=233472, shared_block=232448, fpus=128, clock=1.98)
_GPUS = {
  "a100": dict(
    kind="NVIDIA A100-SXM4-80GB",
    **dict(major=8, shared_core=167936, shared_block=166912, fpus=64, clock=1.41),
    **dict(cores=108, cache=40 * 2**20),
  ),
  "h100": dict(kind="NVIDIA H100 80GB HBM3", **_HOPPER, cores=132, cache=50 * 2**20),
  "h200": dict(kind="NVIDIA H200", **_HOPPER, cores=132, cache=50 * 2**20),
}
_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_core}
  shared_memory_per_block_optin: {shared_block}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {bandwidth}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} }}
  device_vendor: "NVIDIA Corporation"
  name: "{kind}"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{kind}"
"""
# As every command sets where there is an NVIDIA GPU (`scale.backend`); to measure which
# kernels are fastest takes one.
_GPU_OPTIONS = {"xla_gpu_force_conv_nhwc": True, "xla_gpu_autotune_level": 0}


class Topology:
  """Devices that are not there, and what compiles for them.

  Attributes:
    name: of a TPU slice as libtpu has it, or a GPU and how many, such as 'h100:8'.
    mesh: over the devices.
    hosts: that they have.
    kind: what JAX calls one of them.
    limits: of one of them.
    capacity: GiB of one that a program can have: of GPUs, the share that JAX takes.
    compiler: its name and version.
    options: for it.
  """

  def __init__(self, name: str):
    """Loads the compiler; it looks for no accelerator.

    Raises:
      UserError: for an unknown name, devices of unknown memory, and where the compiler
        is not installed or not the one for this JAX; the message has the fix.
    """
    self.name = name
    kind = name.partition(":")[0]
    is_gpu = kind in _GPUS
    shape = _gpu_shape(name) if is_gpu else name
    self.compiler = _required(*_COMPILERS["gpu" if is_gpu else "tpu"])
    _avoid_accelerators()
    devices = _gpus(kind, shape) if is_gpu else _tpus(kind, shape)
    self.mesh = sharding.make_mesh(devices)
    self.hosts = len({device.process_index for device in devices})
    self.kind = _GPUS[kind]["kind"] if is_gpu else devices[0].device_kind
    self.limits = roofline.peak(self.kind)
    if self.limits is None or not self.limits.gibibytes:
      raise UserError(
        f"how much memory a program can have of a {self.kind} is not known yet: add it "
        "to PEAKS of motion_jax/costs/roofline.py"
      )
    self.capacity = self.limits.gibibytes
    if is_gpu:
      self.capacity *= float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", 0.75))
    self.options = _missing(_GPU_OPTIONS) if is_gpu else {}


def _tpus(kind, name):
  options = {"chip_config_name": "megacore"} if kind in _MEGACORE else {}
  if re.search(":1x", name):  # a host with one chip, where others have 2x2 or more
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    found = topologies.get_topology_desc(name, platform="tpu", **options)
  except Exception as error:
    raise UserError(
      f"libtpu knows no topology {name!r} ({_first_line(error)}); give one such as "
      f"{_EXAMPLES}"
    ) from error
  return found.devices


def _gpus(kind, shape):
  facts, limits = _GPUS[kind], roofline.peak(_GPUS[kind]["kind"])
  target = _TARGET.format(
    bandwidth=int(limits.gigabytes * 1e9),
    memory=int(limits.gibibytes * 2**30),
    **facts,
  )
  options = dict(target_config=target, topology=shape)
  return topologies.get_topology_desc(kind, platform="cuda", **options).devices


def _gpu_shape(name):
  """'slices x hosts x GPUs of a host', as XLA has it, of 'h100:16'."""
  count = name.partition(":")[2]
  if not count.isdecimal() or not int(count):
    raise UserError(f"--topology={name} must say how many there are, such as h100:8")
  hosts, rest = divmod(int(count), _GPUS_OF_A_HOST)
  if hosts and rest:
    raise UserError(
      f"--topology={name}: more than {_GPUS_OF_A_HOST} GPUs must be a multiple of "
      f"{_GPUS_OF_A_HOST}, which a host has"
    )
  return f"1x{hosts}x{_GPUS_OF_A_HOST}" if hosts else f"1x1x{rest}"


def _required(distribution, extra):
  """Name and version of a compiler, which must be the one that JAX wants."""
  command = f"pip install -c constraints.txt -e '.[{extra}]'"
  try:
    found = importlib.metadata.version(distribution)
  except importlib.metadata.PackageNotFoundError as error:
    raise UserError(
      f"{distribution}, the compiler of these devices, is not installed: {command}"
    ) from error
  needed = " ".join(importlib.metadata.requires("jax") or ())
  wanted = re.search(rf"{distribution}(?:\[\S+?\])?\S*?=([\d.]*\d)", needed)
  if wanted and not f"{found}.".startswith(f"{wanted[1]}."):
    raise UserError(
      f"{distribution} {found} does not go with jax {jax.__version__}, which takes "
      f"{wanted[1]}: {command}"
    )
  return f"{distribution} {found}"


def _avoid_accelerators():
  """Lets no compiler look for a device, nor wait for the process that uses it."""
  os.environ["CUDA_VISIBLE_DEVICES"] = ""
  os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
  os.environ["TPU_SKIP_MDS_QUERY"] = "1"
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  jax.config.update("jax_platforms", "cpu")


def _missing(options):
  """Those options of the compiler that $XLA_FLAGS does not give."""
  given = os.environ.get("XLA_FLAGS", "")
  return {name: value for name, value in options.items() if name not in given}


def _first_line(error):
  return str(error).splitlines()[0] if str(error) else type(error).__name__
