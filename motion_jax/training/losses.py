"""Losses of steps that a device has not ended yet, and those that are not finite."""

import logging

import jax
import numpy as np

from motion_jax.config import UserError

logger = logging.getLogger("motion_jax")

# Steps dispatched ahead of the device: enough to hide the host, few enough that
# their batches do not fill the memory.
STEPS_IN_FLIGHT = 2


class LossWatch:
  """Keeps the loop close to the device and finds the first loss that is not finite.

  The first step is told when it is done: the next line may be minutes away.
  """

  def __init__(self):
    self._losses, self._began = [], False

  def add(self, step: int, loss: jax.Array) -> None:
    """Notes a step's loss; waits for the step before the last few."""
    self._losses.append((step, loss))
    if not self._began:
      self._began = True
      loss.block_until_ready()
      logger.info("step %d is done, the first", step)
    if len(self._losses) > STEPS_IN_FLIGHT:
      self._losses[-STEPS_IN_FLIGHT - 1][1].block_until_ready()

  def check(self) -> None:
    """Raises UserError, naming the step, if a loss since the last check is bad."""
    for step, loss in self._losses:
      value = float(jax.device_get(loss))
      if not np.isfinite(value):
        raise UserError(
          f"the loss of step {step} is {value}; the last checkpoint is from before. "
          "Go on from it with a lower --config.optim.learning_rate and "
          "--config.train.allow_config_change=True, or begin a new run (--workdir) "
          "with --config.optim.clip_norm=1.0"
        )
    self._losses.clear()
