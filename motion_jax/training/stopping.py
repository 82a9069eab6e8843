"""Signals that end a training, at a moment when nothing is lost."""

import contextlib
import logging
import os
import signal
import threading
import time

import jax
from jax.experimental import multihost_utils

from motion_jax.training import interrupts
from motion_jax.training.interrupts import ONE_PRESS_SECONDS

logger = logging.getLogger("motion_jax")


class Stopped(KeyboardInterrupt):
  """A signal has ended the set-up of a training; the active `StopSignal` ends it."""


class StopSignal:
  """While active, SIGTERM and Ctrl-C only set `requested`: the loop saves and ends.

  They are answered at once, and a second Ctrl-C ends the process at once. Signals reach
  the main thread alone, so elsewhere (some notebooks) nothing is caught. Of several
  processes it is enough that one gets a signal: JAX, which then listens to SIGTERM
  itself, lets all stop after the same step.
  """

  def __enter__(self):
    self.requested, self._pressed = False, 0.0
    self._doing, self._interruptible = "the part of the set-up under way", False
    self._together = jax.process_count() > 1
    self._before = {}
    numbers = [signal.SIGINT] if self._together else [signal.SIGTERM, signal.SIGINT]
    self._answered = interrupts.answered(self._answer)
    self._answered.__enter__()
    if threading.current_thread() is threading.main_thread():
      for number in numbers:
        self._before[number] = signal.signal(number, self._request)
    return self

  @contextlib.contextmanager
  def part(self, doing: str = "", *, interruptible: bool = False):
    """A part of the set-up, before and after which a signal ends it.

    Args:
      doing: what is done, for the answer.
      interruptible: a signal ends it at once, since little is lost.

    Raises:
      Stopped: after a signal, unless there are several processes.
    """
    before = self._doing, self._interruptible
    self._doing, self._interruptible = doing or self._doing, interruptible
    if self.requested:
      raise Stopped
    yield
    self._doing, self._interruptible = before
    if self.requested:
      raise Stopped

  def trains(self) -> None:
    """From now on it is the loop that looks after `requested`."""
    self._doing = "the step or the evaluation under way, and saving"

  def after(self, step: int) -> None:
    """Sets `requested` alike in all processes; to be called in each, once per step."""
    if self._together:
      self.requested = multihost_utils.reached_preemption_sync_point(step)

  def __exit__(self, kind, error, traceback):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._answered.__exit__(None, None, None)
    return isinstance(error, Stopped)

  def _answer(self):
    after = "" if self._interruptible else f" after {self._doing}"
    logger.warning("stopping%s; press Ctrl-C again to stop at once", after)

  def _request(self, number, frame):
    if number == signal.SIGINT:
      if self._pressed and time.monotonic() > self._pressed + ONE_PRESS_SECONDS:
        signal.default_int_handler(number, frame)
      self._pressed = self._pressed or time.monotonic()
    if self._together:
      os.kill(os.getpid(), signal.SIGTERM)
    else:
      self.requested = True
    if self.requested and self._interruptible:
      raise Stopped
