"""Storage that fails, told apart from files that are damaged or gone, and waited for.

What a reader raises does not tell: FFmpeg calls a file cut off that it could not read
to its end, and ArrayRecord raises the same for both. So after any failure the files are
read by themselves. Failing storage is no property of a record: nothing may be masked
because of it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from motion_jax.data.sources import DecodeError, Record, StorageFault

logger = logging.getLogger("motion_jax")

PATIENCE = 300.0  # seconds: servers of network file systems change over in one to two
_PAUSES = (1.0, 60.0)  # seconds, the first and the longest
_PIECE = 2**20  # bytes that are read at a time
# What is one file's own affair, if others lie beside it. All other errors are not.
_OF_A_FILE = (
  *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
  *(errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO),
)
# How libraries of which an exception has only the text name failing storage.
_WORDS = {
  os.strerror(getattr(errno, name))
  for name in (
    *("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "ENODEV", "EREMOTEIO", "EPIPE"),
    *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH"),
    *("ENETDOWN", "ENETUNREACH", "EMFILE", "ENFILE", "EAGAIN"),
  )
  if hasattr(errno, name)
}
Result = TypeVar("Result")


class StorageError(Exception):
  """Storage has failed for longer than anybody waits; exit code 75, "try again"."""


@contextlib.contextmanager
def reading_records(path: str) -> Iterator[None]:
  """Around reading from a file of records.

  Raises:
    StorageFault: if the file cannot be read.
    DecodeError: for any other exception: the record is damaged.
  """
  try:
    yield
  except Exception as error:
    said = failing(error)
    fault = StorageFault(path, said) if said else _fault(path, ends_only=True)
    if fault:
      raise fault from error
    raise DecodeError(f"damaged in {path}: {reason_of(error)}") from error


def failing(error: BaseException | None) -> str:
  """How an error, or its cause, says that storage fails; '' if it does not."""
  while error is not None:
    for words in _WORDS:
      if words in str(error):
        return words
    error = error.__cause__ or error.__context__
  return ""


class Patience:
  """Waits for storage, in all threads of a process together.

  Args:
    root: folder that all files lie in, as a file or folder that is missing below it is
      missing for itself; '' if they lie anywhere.
    seconds: after which a read that fails again and again ends the run.
  """

  def __init__(self, root: str = "", seconds: float | None = None):
    self._root, self._seconds = root, PATIENCE if seconds is None else seconds
    self._lock, self._woke = threading.Lock(), 0.0
    self._fails, self._spent = False, False

  def __reduce__(self):
    return Patience, (self._root, self._seconds)  # worker processes wait by themselves

  def read(
    self, attempt: Callable[[], Result], files: Callable[[], Iterable]
  ) -> Result:
    """Returns what `attempt()` returns, tried again while storage fails.

    Args:
      attempt: reads and decodes a record, the same whenever it is called.
      files: paths that the last attempt has read; none if it got the media as bytes.

    Raises:
      DecodeError: if the record is damaged, or too large for the memory. Where it has
        files it is tried twice: storage may be back by the time these are looked at.
      StorageError: after the patience; the message has the path.
    """
    fault, began, is_sure = None, None, False
    while True:
      try:
        found = attempt()
        if fault and self._fails:
          self._fails = False  # told by the first thread
          logger.warning("%s can be read again", fault.path)
        return found
      except StorageFault as error:
        fault = error
      except (DecodeError, OSError, MemoryError) as error:
        paths = [*files()] or [getattr(error, "filename", None)]
        paths = [path for path in paths if path]
        faults = (_fault(path, root=self._root) for path in paths)
        found = next(filter(None, faults), None)
        if not found:
          if is_sure or not paths:
            raise DecodeError(reason_of(error)) from error
          is_sure = True
          continue
        fault = found
      began = began or time.monotonic()
      is_sure = False
      self._wait(fault, began)

  def _wait(self, fault: StorageFault, began: float) -> None:
    """Pauses as long as the failure has lasted, once for all threads that meet it."""
    failed = time.monotonic()
    with self._lock:
      if self._spent:
        raise StorageError(self._message(fault))
      if self._woke > failed:
        return  # another thread has paused meanwhile
      lasted = time.monotonic() - began
      if lasted >= self._seconds:
        self._spent = True
        raise StorageError(self._message(fault))
      pause = min(max(_PAUSES[0], lasted), _PAUSES[1], self._seconds - lasted)
      logger.warning(
        "cannot read %s: %s; trying again in %.0f s, for %.0f s in all",
        *(fault.path, fault.reason, pause, self._seconds),
      )
      time.sleep(pause)
      self._fails, self._woke = True, time.monotonic()

  def _message(self, fault: StorageFault) -> str:
    return (
      f"{fault.path} cannot be read: {fault.reason}, for {self._seconds:.0f} s. The "
      "storage fails, not the file: nothing was masked. When it is back, the same "
      "command goes on"
    )


def files_of(record: Record | None) -> list[str | os.PathLike]:
  """The paths of a record's media; none if it holds bytes."""
  media = record.media if record else ()
  media = media if isinstance(media, tuple) else (media,)
  return [part for part in media if not isinstance(part, bytes)]


def check_files(record: Record) -> None:
  """Raises StorageFault if the files of a record that has failed cannot be read now."""
  for path in files_of(record):
    check_path(path)


def check_path(path: str | os.PathLike) -> None:
  """Raises StorageFault if a file cannot be read now, as a damaged one can."""
  if fault := _fault(path):
    raise fault


def check_error(error: Exception, path: str | os.PathLike) -> None:
  """Raises StorageFault for an error that cannot be the file's or folder's own."""
  if isinstance(error, OSError) and error.errno not in _OF_A_FILE:
    raise StorageFault(path, error.strerror or str(error)) from error


def reason_of(error: BaseException) -> str:
  """What an error says, on one line."""
  if isinstance(error, MemoryError):
    # Of this record: a damaged header can ask for any size. Where a host is short of
    # memory, processes are killed without an exception.
    return "it does not fit into the memory"
  return " ".join(str(error).split()) or type(error).__name__


def _fault(
  path: str | os.PathLike, ends_only: bool = False, root: str = ""
) -> StorageFault | None:
  """Reads a file, or lists a folder; None if what fails is the file's own affair.

  That it is gone, or must not be read, is so as long as there is something else in its
  root; without a root, in its folder. An empty one is where a mount was.
  """
  try:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
      os.listdir(path)
    elif stat.S_ISREG(mode):  # a pipe would wait for a writer
      _read(path, ends_only)
  except OSError as error:
    own = error.errno in _OF_A_FILE and not ends_only and _has_others(path, root)
    return None if own else StorageFault(path, error.strerror or str(error))
  except ValueError:  # no path at all
    return None
  return None


def _read(path: str | os.PathLike, ends_only: bool) -> None:
  with open(path, "rb", buffering=0) as file:
    if ends_only:
      file.read(_PIECE)
      file.seek(-min(_PIECE, os.fstat(file.fileno()).st_size), os.SEEK_END)
    while file.read(_PIECE):
      pass


def _has_others(path: str | os.PathLike, root: str) -> bool:
  """Whether the root is there and not empty; of a link out of it, the link's folder."""
  folder = os.path.dirname(os.path.realpath(path))
  root = os.path.realpath(root) if root else folder
  try:
    is_below = os.path.commonpath([root, folder]) == root
  except ValueError:  # of another drive
    is_below = False
  try:
    with os.scandir(root if is_below else folder) as entries:
      return next(entries, None) is not None
  except OSError:
    return False
