"""An answer to Ctrl-C at once, whatever the program is doing."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

_PATIENCE_SECONDS = 1.0  # of a second Ctrl-C, for the main thread to end by itself
ONE_PRESS_SECONDS = 0.5  # wrappers such as `timeout` pass a signal on twice
GOES_ON = "stopped; the same command goes on from what was saved before"


@contextlib.contextmanager
def answered(answer: Callable[[], None]):
  """Answers the first signal at once, and ends the process at the second Ctrl-C.

  Python's own handlers, which this leaves as they are, run in the main thread alone,
  when it is not busy: a compilation or a thread that it waits for takes up to a minute.
  Elsewhere than in the main thread nothing is answered. A KeyboardInterrupt that those
  handlers raise where Python only prints exceptions (in a destructor, or in a callback
  of the garbage collector, as JAX has one) is raised once more, behind that place.

  Args:
    answer: says what the program does before it ends; runs in another thread.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  reader, writer = socket.socketpair()
  writer.setblocking(False)
  before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
  thread = threading.Thread(target=_listen, args=(reader, answer), daemon=True)
  thread.start()
  try:
    with _raised_again():
      yield
  finally:
    signal.set_wakeup_fd(before)
    writer.close()
    thread.join()
    reader.close()


@contextlib.contextmanager
def _raised_again():
  before, timers = sys.unraisablehook, []
  main = ctypes.c_ulong(threading.main_thread().ident)

  def hook(unraisable):
    kind = unraisable.exc_type
    if not issubclass(kind, KeyboardInterrupt):
      return before(unraisable)
    again = ctypes.pythonapi.PyThreadState_SetAsyncExc
    timers.append(threading.Timer(0.01, again, [main, ctypes.py_object(kind)]))
    timers[-1].start()

  sys.unraisablehook = hook
  try:
    yield
  finally:
    sys.unraisablehook = before
    for timer in timers:
      timer.cancel()


def _listen(reader, answer):
  """Reads the numbers of signals, which Python writes as soon as they arrive."""
  seen = []
  while number := reader.recv(1):
    if number[0] not in (signal.SIGINT, signal.SIGTERM):
      continue
    seen.append(number[0])
    if len(seen) == 1:
      first = time.monotonic()
      answer()
    elif time.monotonic() < first + ONE_PRESS_SECONDS:
      seen.pop()
    elif seen.count(signal.SIGINT) > 1:
      reader.settimeout(_PATIENCE_SECONDS)
      with contextlib.suppress(TimeoutError):
        while reader.recv(1):
          pass
        return  # the main thread has left
      print(GOES_ON, file=sys.stderr, flush=True)
      os._exit(130)
