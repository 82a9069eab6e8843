"""Processes that work for another one."""

import multiprocessing
import os
import signal
import threading

from motion_jax.data import media


def serve_parent(*numbers: signal.Signals) -> None:
  """Leaves signals, which may reach a whole group, to the parent; ends with it.

  To be called first in a process that `multiprocessing` has started. OpenCV is set up
  there as in our commands.
  """
  media.set_up_opencv()
  for number in numbers:
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
  multiprocessing.parent_process().join()
  os._exit(1)
