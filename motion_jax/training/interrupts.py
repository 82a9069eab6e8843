"""An answer to Ctrl-C at once, whatever the program is doing."""

import contextlib
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
  Elsewhere than in the main thread nothing is answered.

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
    yield
  finally:
    signal.set_wakeup_fd(before)
    writer.close()
    thread.join()
    reader.close()


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
