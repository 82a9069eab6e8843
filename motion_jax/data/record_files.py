"""Random access to the records of many ArrayRecord files, few of which are open."""

from __future__ import annotations

import bisect
import collections
import itertools
import threading
from collections.abc import Sequence

from array_record.python.array_record_module import ArrayRecordReader

from motion_jax.data import storage

try:
  import resource
except ImportError:  # on Windows
  resource = None

# As ArrayRecordDataSource opens files, which would keep all of them open.
_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 32768}
_MOST_OPEN = 256
_LEAST_OPEN = 8


class RecordFiles:
  """The records of some files, one after the other; for any number of threads.

  Args:
    files: path of each, and how many records it has.
    most_open: files that stay open; None for an eighth of what the process may open.
  """

  def __init__(self, files: Sequence[tuple[str, int]], most_open: int | None = None):
    self._paths = [path for path, _ in files]
    self._ends = [*itertools.accumulate(count for _, count in files)]
    self._most_open = most_open
    self._start()

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: int) -> bytes:
    """Reads a record.

    Raises:
      IndexError: if there is no such record.
      DecodeError: if it is damaged.
      StorageFault: if its file cannot be read.
    """
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    number = bisect.bisect_right(self._ends, index)
    first = self._ends[number - 1] if number else 0
    with storage.reading_records(self._paths[number]):
      try:
        (record,) = self._reader(number).read([index - first])
      except Exception:
        with self._lock:  # a stale handle stays so until the file is opened anew
          self._open.pop(number, None)
        raise
    return record

  def __getstate__(self):
    return self._paths, self._ends, self._most_open

  def __setstate__(self, state):
    self._paths, self._ends, self._most_open = state
    self._start()

  def _start(self):
    self._open: collections.OrderedDict = collections.OrderedDict()
    self._lock = threading.Lock()

  def _reader(self, number: int) -> ArrayRecordReader:
    """A file's reader; those that are put away close when no thread reads any more."""
    with self._lock:
      if number in self._open:
        self._open.move_to_end(number)
        return self._open[number]
    reader = ArrayRecordReader(self._paths[number], **_OPTIONS)
    with self._lock:
      reader = self._open.setdefault(number, reader)  # another thread may be faster
      self._open.move_to_end(number)
      while len(self._open) > (self._most_open or _room()):
        self._open.popitem(last=False)
    return reader


def _room() -> int:
  """Files that one of several sources may keep open in a process."""
  if resource is None:
    return _LEAST_OPEN
  limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  if limit == resource.RLIM_INFINITY:
    return _MOST_OPEN
  return min(_MOST_OPEN, max(_LEAST_OPEN, limit // 8))
