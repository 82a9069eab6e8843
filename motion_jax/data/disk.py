"""Where prepared data lie, who may write there, and files that are there as a whole."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import pathlib
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping

from array_record.python.array_record_module import ArrayRecordWriter

from motion_jax.config import UserError, local_path
from motion_jax.data import storage

try:
  import fcntl
except ImportError:  # on Windows
  fcntl = None

logger = logging.getLogger("motion_jax")

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def data_root(data_dir: str | os.PathLike | None = None) -> pathlib.Path:
  """The root of prepared data sets; without one $TFDS_DATA_DIR, or else TFDS's own."""
  default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  return local_path(data_dir or default)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Holds the right to write below `path`; a second process waits for its turn.

  Where there are no such locks (Windows, some network file systems), a warning says
  that nothing waits.

  Raises:
    OSError: if the folder cannot be created or written.
  """
  path.mkdir(parents=True, exist_ok=True)
  with open(path / ".lock", "w") as lock:
    if not _lock(lock):
      logger.warning(
        "no file locks on this system: let no other process write to %s now", path
      )
    yield


def write_json(path: pathlib.Path, value) -> None:
  """Writes JSON that is there whole or not at all."""
  draft = path.with_suffix(f".{uuid.uuid4().hex}.draft")  # other hosts may write too
  draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
  os.replace(draft, path)


@contextlib.contextmanager
def new_records(path: pathlib.Path, options: str) -> Iterator[Callable[[bytes], None]]:
  """Makes a file of records, a draft of this process until it is complete.

  Yields:
    A function that writes a record; OSError where that cannot be done.
  """

  # Another host may write the same: a process that was thought to be lost.
  draft = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")

  def checked(call, *args):
    try:
      return call(*args)
    except RuntimeError as error:  # of a full disk, too
      raise OSError(f"{draft} cannot be written: {error}") from error

  try:
    writer = checked(ArrayRecordWriter, os.fspath(draft), options)
    try:
      yield functools.partial(checked, writer.write)
    except BaseException:
      with contextlib.suppress(RuntimeError):
        writer.close()
      raise
    checked(writer.close)
    os.replace(draft, path)
  finally:
    draft.unlink(missing_ok=True)


def check_same(
  folder: pathlib.Path,
  file: str,
  wanted: Mapping,
  *,
  within: str = "",
  fix: str = "delete it, and run the same command again",
) -> None:
  """Stops if what lies in a folder was made from other things or otherwise.

  Args:
    folder: looked at.
    file: in it; JSON that tells what it was made with.
    wanted: what that should be.
    within: key of the part that tells so; '' for all. What tells nothing is accepted.
    fix: what to do, for the message.

  Raises:
    UserError: if it differs, or the file cannot be read.
  """
  try:
    found = json.loads((folder / file).read_text())
  except (OSError, ValueError) as error:
    storage.check_error(error, folder)  # nothing is to be deleted for it
    raise UserError(f"{folder} is damaged ({error}); delete it") from error
  found = found.get(within, wanted) if within else found
  differ = [key for key in wanted if found.get(key) != wanted[key]]
  if differ:
    were = (f"{k}={found[k]}" if k in found else f"unknown {k}" for k in differ)
    raise UserError(
      f"{folder} was made with {', '.join(were)}, not with "
      f"{', '.join(f'{key}={wanted[key]}' for key in differ)}; {fix}"
    )


def _lock(file) -> bool:
  """Waits for a lock; False if the system, or the file system, has none."""
  if fcntl is None:
    return False
  try:
    fcntl.flock(file, fcntl.LOCK_EX)
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    return False
  return True
