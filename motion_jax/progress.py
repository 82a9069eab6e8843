"""How far long work has come, on a terminal and in a log file alike."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator

import tqdm

logger = logging.getLogger("motion_jax")

_FILE_SECONDS = 60  # between two lines in a file


class _Lines:
  """A text file to which each state of a bar is a line of its own."""

  def __init__(self, file):
    self._file = file

  def write(self, text: str) -> None:
    line = text.strip("\r\n ")
    if line:
      self._file.write(f"{line}\n")

  def flush(self) -> None:
    self._file.flush()


def progress_bar(*args, **options) -> tqdm.tqdm:
  """A `tqdm.tqdm` on stderr; where that is a file, a whole line each full minute."""
  if not sys.stderr.isatty():
    seconds = dict(mininterval=_FILE_SECONDS, delay=_FILE_SECONDS)
    options |= dict(file=_Lines(sys.stderr), ncols=0, **seconds)
  return tqdm.tqdm(*args, **options)


@contextlib.contextmanager
def sign_of_life(what: str, every: float = 60.0) -> Iterator[None]:
  """Logs a line every so many seconds while what runs inside has not ended."""
  began, ended = time.monotonic(), threading.Event()

  def tell():
    while not ended.wait(every):
      logger.info("%s, for %.0f s now", what, time.monotonic() - began)

  thread = threading.Thread(target=tell, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
