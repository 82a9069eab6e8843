"""How several processes find each other; what they then agree on is in `hosts`."""

import glob
import importlib.util
import logging
import os
import re
import socket
import sys
import time

import jax

from motion_jax.config import UserError
from motion_jax.scale import hosts

logger = logging.getLogger("motion_jax")

# A process that is silent for this long counts as dead, and the others end.
_HEARTBEAT_SECONDS = 30
_JOIN_SECONDS = 300  # queues start hosts minutes apart


def join(
  coordinator: str,
  processes: int | None,
  process_index: int | None,
  *,
  stops_on_sigterm: bool = False,
) -> None:
  """Connects this process with the others; call it before anything uses a device.

  On TPU pods and within SLURM's `srun`, JAX finds the others by itself; elsewhere the
  arguments say where they are. A single process needs neither. The tasks of one `srun`
  are one run, unless `processes` is 1: then each is a run of its own. A process takes
  all GPUs that it sees; of several tasks on a node, each takes one.
  JAX_LOCAL_DEVICE_IDS=0,1 overrides both.

  Args:
    coordinator: 'host:port' of process 0; '' to look for a cluster.
    processes: how many there are; 1 alone to join no others, wherever this runs.
    process_index: number of this one, in [0, processes).
    stops_on_sigterm: leave SIGTERM to JAX, whose `reached_preemption_sync_point` tells
      all processes of it; a program that never asks would not end by it.

  Raises:
    UserError: if arguments are missing, process 0 does not answer, or the processes run
      other commands. (JAX itself ends process 0 when others do not come.)
  """
  given = (bool(coordinator), processes is not None, process_index is not None)
  if processes == 1 and given == (False, True, False):
    return
  jax.config.update("jax_enable_preemption_service", stops_on_sigterm)
  if any(given):
    _check(coordinator, processes, process_index, all(given))
    if process_index:
      _wait_for(coordinator)
    _connect(
      coordinator_address=coordinator,
      num_processes=processes,
      process_id=process_index,
      cluster_detection_method="deactivate",
    )
  elif _started_by_srun():
    _connect(local_device_ids=_gpus_of_srun())
  elif _on_tpu_pod():
    _connect()
  elif _on_tpu_machine():
    try:
      _connect()
    except (ValueError, OSError) as error:  # a TPU without Google's metadata
      logger.warning("this host is taken for the only one: %s", error)
  if jax.distributed.is_initialized():
    _check_devices()
    _check_commands(sys.argv[1:])


def _check(coordinator, processes, process_index, complete):
  if not complete:
    raise UserError(
      "--coordinator, --processes and --process_index belong together, e.g. "
      "--coordinator=host0:1234 --processes=2 --process_index=0 on the first of two "
      "hosts; TPU pods and srun need none of them"
    )
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdecimal():
    raise UserError(f"--coordinator={coordinator} must be HOST:PORT of process 0")
  if not 0 <= process_index < processes:
    raise UserError(
      f"--process_index={process_index} must be in 0 to {processes - 1}, since "
      f"--processes={processes}"
    )


def _wait_for(coordinator: str) -> None:
  """Waits until process 0 listens; JAX would abort instead of raising an error."""
  host, _, port = coordinator.rpartition(":")
  patience = time.monotonic() + _JOIN_SECONDS
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
      return
    except OSError as error:
      if time.monotonic() > patience:
        raise UserError(
          f"process 0 has not answered at --coordinator={coordinator} for "
          f"{_JOIN_SECONDS} s ({error}); is it running, and can this host reach it?"
        ) from error
    time.sleep(0.2)


def _connect(**where):
  jax.distributed.initialize(
    **where,
    initialization_timeout=_JOIN_SECONDS,
    heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
  )


def _started_by_srun() -> bool:
  # Not SLURM_NTASKS: a batch script has that, too, before it calls srun.
  return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def _gpus_of_srun() -> list[int] | None:
  """All GPUs of its node for a task that is alone there; None: JAX gives it one."""
  tasks, nodes = (
    os.environ.get(f"SLURM_STEP_NUM_{name}") for name in ("TASKS", "NODES")
  )
  if tasks != nodes or "JAX_LOCAL_DEVICE_IDS" in os.environ:
    return None
  return [*range(int(os.environ.get("SLURM_GPUS_ON_NODE") or 0))] or None


def _on_tpu_pod() -> bool:
  slices = int(os.environ.get("MEGASCALE_NUM_SLICES") or 1)
  return slices > 1 or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _on_tpu_machine() -> bool:
  """Whether TPU chips are here; only Google's metadata know of other hosts."""
  if "tpu" not in os.environ.get("JAX_PLATFORMS", "tpu"):
    return False
  chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
  asked = "TPU_SKIP_MDS_QUERY" not in os.environ
  return asked and bool(chips) and importlib.util.find_spec("libtpu") is not None


def _check_devices():
  own, count, everywhere = (
    jax.local_device_count(),
    jax.process_count(),
    jax.device_count(),
  )
  if own * count != everywhere:
    raise UserError(
      f"process {jax.process_index()} has {own} of {everywhere} devices; every one of "
      f"the {count} processes must have as many"
    )


def _check_commands(words: list[str]) -> None:
  """Raises UserError, in every process, if some run another command."""
  other = hosts.first_other(_common(words))
  if other:
    raise UserError(
      f"process {other} runs another command than process 0; processes that train "
      "as one need the same. To the tasks of an srun that are runs of their own give "
      "--processes=1"
    )


def _common(words: list[str]) -> list[str]:
  """A command line without what may differ between hosts."""
  own = rf"--?(process_index|config\.{hosts.OWN_SETTINGS})(=|$)"
  kept, skip = [], False
  for word in words:
    skip = skip and not word.startswith("-")  # the value of the flag before
    match = re.match(own, word)
    if not match and not skip:
      kept.append(word)
    skip = bool(match) and "=" not in word
  return kept
