"""Processes that work for another one."""

import multiprocessing
import os
import signal
import threading


def serve_parent(*numbers: signal.Signals) -> None:
  """Leaves signals, which may reach a whole group, to the parent; ends with it.

  To be called first in a process that `multiprocessing` has started.
  """
  for number in numbers:
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
  multiprocessing.parent_process().join()
  os._exit(1)
