"""What watches over the loop: losses that are no longer finite, signals to stop."""

import contextlib
import logging
import os
import signal
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

from motion_jax import interrupts
from motion_jax.config import UserError

logger = logging.getLogger("motion_jax")

# Steps dispatched ahead of the device: enough to hide the host, few enough that
# their batches do not fill the memory.
STEPS_IN_FLIGHT = 2


class LossWatch:
  """Keeps the loop close to the device and finds the first loss that is not finite."""

  def __init__(self):
    self._losses = []

  def add(self, step: int, loss: jax.Array) -> None:
    """Notes a step's loss; waits for the step before the last few."""
    self._losses.append((step, loss))
    if len(self._losses) > STEPS_IN_FLIGHT:
      self._losses[-STEPS_IN_FLIGHT - 1][1].block_until_ready()

  def check(self) -> None:
    """Raises UserError, naming the step, if a loss since the last check is bad."""
    for step, loss in self._losses:
      value = float(jax.device_get(loss))
      if not np.isfinite(value):
        raise UserError(
          f"the loss of step {step} is {value}; the last checkpoint is from before. "
          "Try a lower --config.optim.learning_rate or --config.optim.clip_norm=1.0"
        )
    self._losses.clear()


class Stopped(KeyboardInterrupt):
  """A signal has ended a training before its first step."""


class StopSignal:
  """While active, SIGTERM and Ctrl-C only set `requested`: the loop saves and ends.

  They are answered at once, and a second Ctrl-C ends the process at once. Signals reach
  the main thread alone, so elsewhere (some notebooks) nothing is caught. Of several
  processes it is enough that one gets a signal: JAX, which then listens to SIGTERM
  itself, lets all stop after the same step.
  """

  def __enter__(self):
    self.requested = False
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

  def __exit__(self, *unused):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._answered.__exit__(None, None, None)

  def _answer(self):
    after = "" if self._interruptible else f" after {self._doing}"
    logger.warning("stopping%s; press Ctrl-C again to stop at once", after)

  def _request(self, number, frame):
    if self._together:
      os.kill(os.getpid(), signal.SIGTERM)
    else:
      self.requested = True
    if number == signal.SIGINT:
      signal.signal(number, self._before[number])
    if self.requested and self._interruptible:
      raise Stopped
