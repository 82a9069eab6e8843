"""Several processes that train as one: how they meet, and what they agree on.

Every process runs the same program on its own devices. Process 0 alone writes logs and
pictures; the working directory lies on storage that all of them share.
"""

import glob
import hashlib
import importlib.util
import logging
import os
import pathlib
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from motion_jax.config import UserError

logger = logging.getLogger("motion_jax")

# A process that is silent for this long counts as dead, and the others end.
_HEARTBEAT_SECONDS = 30
_JOIN_SECONDS = 300  # queues start hosts minutes apart
_TURN_SECONDS = 24 * 3600  # a data set may be made meanwhile
_SHARED_SECONDS = 60  # network file systems may show a new file late


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


def in_turn(make: Callable):
  """Calls `make` on process 0 first, then on the others.

  Whatever it makes on a shared disk is there when the others come; on disks of their
  own, they make it themselves.

  Returns:
    What `make` returns here.
  """
  if jax.process_count() == 1:
    return make()
  if jax.process_index() == 0:
    try:
      return make()
    finally:  # also after an error, so that the others meet it, too
      meet("in_turn")
  meet("in_turn")
  return make()


def meet(name: str) -> None:
  """Waits until every process is here; `name` tells this place from others.

  For work of unequal length before devices communicate, such as a compilation that
  some find in their cache: on CPUs, devices wait for each other half a minute only.
  """
  if jax.process_count() > 1:
    # Of the coordination service: a wait of minutes is none for the devices.
    wait = ocp.multihost.get_barrier_sync_fn()
    wait(key=name, timeout_ms=_TURN_SECONDS * 1000)


def check_shared(folder: pathlib.Path) -> None:
  """Raises UserError unless all processes see the same folder."""
  count, index = jax.process_count(), jax.process_index()
  if count == 1:
    return
  marks = [folder / f".process-{number}" for number in range(count)]
  marks[index].touch()
  meet("marked")
  for mark in marks:
    wait_for_storage(
      mark.exists,
      f"process {index} of {count} does not see {mark}: --workdir must be on storage "
      "that all hosts share, under the same path",
    )
  meet("seen")
  marks[index].unlink()


def wait_for_storage(is_there: Callable[[], bool], message: str) -> None:
  """Waits until this host sees what another one sees on shared storage.

  Raises:
    UserError: with the message, if it has not come after a minute.
  """
  patience = time.monotonic() + _SHARED_SECONDS
  while not is_there():
    if time.monotonic() > patience:
      raise UserError(message)
    time.sleep(0.2)


def largest(value: int) -> int:
  """The largest of the values that the processes have here, alike in all of them."""
  if jax.process_count() == 1:
    return int(value)
  return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def is_file(path: pathlib.Path) -> bool:
  """Whether there is a file, alike in all processes.

  Raises:
    UserError: where it is missing, if another process sees it.
  """
  own = path.is_file()
  if largest(own) and not own:
    raise UserError(
      f"{path} is not there for process {jax.process_index()}, but for another one; "
      "put it where all hosts see it"
    )
  return own


def of_first(values: Mapping[str, float]) -> dict[str, float]:
  """The values of process 0, exactly, for decisions that all must take alike."""
  if jax.process_count() == 1:
    return dict(values)
  bits = np.asarray([*values.values()], np.float64).view(np.uint32)
  if not len(bits):
    return {}
  bits = np.asarray(multihost_utils.broadcast_one_to_all(bits), np.uint32)
  return dict(zip(values, bits.view(np.float64).tolist(), strict=True))


def agreed(counts: np.ndarray) -> np.ndarray:
  """What all processes have alike, such as the rows that each could make of videos.

  Args:
    counts: [N] int, this process's.

  Returns:
    [N] int; 0 where they differ.
  """
  if jax.process_count() == 1:
    return counts
  found = multihost_utils.process_allgather(counts.astype(np.int32))
  return np.where((found == found[0]).all(0), found[0], 0)


def own_file(path: pathlib.Path) -> pathlib.Path:
  """A file that each process has for itself: 'name.txt', 'name.1.txt', ..."""
  index = jax.process_index()
  return path.with_suffix(f".{index}{path.suffix}") if index else path


def merge_own_files(path: pathlib.Path) -> None:
  """Appends the lines of the other processes' `own_file`s, each once; removes these."""
  if jax.process_index() != 0:
    return
  text = dict(encoding="utf-8", errors="surrogateescape")
  for other in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")):
    known = path.read_text(**text).splitlines() if path.exists() else []
    new = [line for line in other.read_text(**text).splitlines() if line not in known]
    with path.open("a", **text) as file:
      file.writelines(f"{line}\n" for line in new)
    other.unlink()


def is_lost_contact(error: BaseException) -> bool:
  """Whether an error tells that another process has ended or cannot be reached."""
  signs = ("gloo", "nccl", "heartbeat", "coordination", "unhealthy", "unavailable")
  text = str(error).lower()
  is_runtime = isinstance(error, jax.errors.JaxRuntimeError)
  return is_runtime and any(sign in text for sign in signs)


def leave(code: int) -> int:
  """Ends this process after an error without waiting for the others.

  Returns:
    `code`, if there are no others.
  """
  if not jax.distributed.is_initialized() or jax.process_count() == 1:
    return code
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  if jax.process_index() == 0:
    time.sleep(5)  # they are connected by it: let them tell of the same error
  os._exit(code)


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


# Names in the config of what may differ between hosts, such as where data lie.
OWN_SETTINGS = r"data\.(path|data_dir|\w+_list|threads|workers)"


def _common(words: list[str]) -> list[str]:
  """A command line without what may differ between hosts."""
  own = rf"--?(process_index|config\.{OWN_SETTINGS})(=|$)"
  kept, skip = [], False
  for word in words:
    skip = skip and not word.startswith("-")  # the value of the flag before
    match = re.match(own, word)
    if not match and not skip:
      kept.append(word)
    skip = bool(match) and "=" not in word
  return kept


def check_records(sources) -> None:
  """Raises UserError, in every process, if some see other records than process 0.

  Told by the names and labels of all; the message has a few names.

  Args:
    sources: the parts of the data set, of `motion_jax.data.sources.Source`.
  """
  if jax.process_count() == 1:
    return
  other = _first_other([digest_of_records(sources)])
  if other:
    names = []
    for source in sources:
      places = (0, len(source) // 2, len(source) - 1) if len(source) else ()
      names += [str(len(source)), *map(source.id_of, places)]
    raise UserError(
      f"process {other} has other data than process 0 (here: {', '.join(names)}); "
      "copies of a data set must hold the same files"
    )


def digest_of_records(sources) -> str:
  """A hash of the names and labels of all records, wherever their files lie."""
  digest = hashlib.sha256()
  for source in sources:
    names = "\n".join(map(source.id_of, range(len(source))))
    text = f"{len(source)}\n{names}\n{source.classes}\n{[*map(int, source.labels)]}\n"
    digest.update(text.encode("utf-8", "surrogateescape"))
  return digest.hexdigest()[:16]


def _check_commands(words: list[str]) -> None:
  """Raises UserError, in every process, if some run another command."""
  other = _first_other(_common(words))
  if other:
    raise UserError(
      f"process {other} runs another command than process 0; processes that train "
      "as one need the same. To the tasks of an srun that are runs of their own give "
      "--processes=1"
    )


def _first_other(words: list[str]) -> int:
  """The first process whose words are not those of process 0; 0 if there is none."""
  text = "\n".join(words).encode("utf-8", "surrogateescape")
  digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
  found = np.asarray(multihost_utils.process_allgather(digest))
  return int((found != found[0]).any(1).argmax())
