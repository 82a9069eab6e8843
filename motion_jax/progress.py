"""How far long work has come, on a terminal and in a log file alike."""

import sys

import tqdm

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
