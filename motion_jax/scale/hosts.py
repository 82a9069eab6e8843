"""What the processes of one run tell each other, and decide alike.

Every process runs the same program on its own devices. Process 0 alone writes logs and
pictures; the working directory lies on storage that all of them share. How they find
each other is in `cluster`.
"""

import hashlib
import os
import pathlib
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from motion_jax.config import UserError

_TURN_SECONDS = 24 * 3600  # a data set may be made meanwhile
_SHARED_SECONDS = 60  # network file systems may show a new file late
_GATHERED = 2**26  # bytes of all processes that are gathered at a time

# Names in the config of what may differ between hosts, such as where data lie.
OWN_SETTINGS = r"data\.(path|data_dir|\w+_list|threads|workers)"


def first_process_first(make: Callable):
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
      barrier("first_process_first")
  barrier("first_process_first")
  return make()


def barrier(name: str) -> None:
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
  barrier("marked")
  for mark in marks:
    wait_for_storage(
      mark.exists,
      f"process {index} of {count} does not see {mark}: --workdir must be on storage "
      "that all hosts share, under the same path",
    )
  barrier("seen")
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


def from_process_zero(values: Mapping[str, float]) -> dict[str, float]:
  """The values of process 0, exactly, for decisions that all must take alike."""
  return everyones(dict(values))[0]


def everyones(value: Any) -> list[Any]:
  """What each process has here, anything that can be pickled, alike in all of them."""
  count = jax.process_count()
  if count == 1:
    return [value]
  own = pickle.dumps(value)
  step = _GATHERED // count
  sizes = np.asarray([len(own) // step, len(own) % step], np.int32)
  whole, rest = np.asarray(multihost_utils.process_allgather(sizes), np.int64).T
  sizes = (whole * step + rest).tolist()
  step = min(step, 1 << max(sizes).bit_length())  # few lengths, each compiled once
  found = [bytearray() for _ in sizes]
  for start in range(0, max(sizes), step):
    piece = np.zeros(step, np.uint8)
    some = np.frombuffer(own[start : start + step], np.uint8)
    piece[: len(some)] = some
    pieces = multihost_utils.process_allgather(piece)
    for whole, part, size in zip(found, pieces, sizes, strict=True):
      whole += memoryview(part)[: max(0, size - start)]  # the rest fills up
  found.reverse()
  return [pickle.loads(found.pop()) for _ in sizes]


def gathered(numbers: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """What all processes have of things with numbers, sorted by number.

  Args:
    numbers: [n] int, of this process; of equal ones the first process's counts.
    rows: [n, ...] of the same type in all processes; where n is 0, of any shape.

  Returns:
    numbers [N] and rows [N, ...] of all, bit for bit, in every process.
  """
  found = everyones((numbers, rows))
  numbers = np.unique(np.concatenate([each for each, _ in found]))
  shape = next((each.shape[1:] for _, each in found if len(each)), rows.shape[1:])
  rows = np.empty((len(numbers), *shape), rows.dtype)
  for own, its_rows in reversed(found):
    if len(own):
      rows[np.searchsorted(numbers, own)] = its_rows
  return numbers, rows


def is_lost_contact(error: BaseException) -> bool:
  """Whether an error tells that another process has ended or cannot be reached."""
  signs = ["gloo", "nccl"]
  if isinstance(error, jax.errors.JaxRuntimeError):  # others may name them otherwise
    signs += ["heartbeat", "coordination", "unhealthy", "unavailable"]
  return any(sign in str(error).lower() for sign in signs)


def end_process(code: int) -> int:
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


def check_records(sources) -> None:
  """Raises UserError, in every process, if some see other records than process 0.

  Told by the names and labels of all; the message has a few names.

  Args:
    sources: the parts of the data set, of `motion_jax.data.sources.Source`.
  """
  if jax.process_count() == 1:
    return
  other = first_other([digest_of_records(sources)])
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


def first_other(words: list[str]) -> int:
  """The first process whose words are not those of process 0; 0 if there is none."""
  text = "\n".join(words).encode("utf-8", "surrogateescape")
  digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
  found = np.asarray(multihost_utils.process_allgather(digest))
  return int((found != found[0]).any(1).argmax())
