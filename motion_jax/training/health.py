"""Warns of trainings that do not learn, while there is time to do something."""

import logging
from collections.abc import Mapping

import jax

from motion_jax.training.verdict import PAGE, at_chance

logger = logging.getLogger("motion_jax")

_COLLAPSED = 0.05  # spread of features; 1 if they lie evenly on a sphere
_CHANCE_AFTER, _COLLAPSE_AFTER = 0.5, 0.1  # shares of the training
_TRIAL = 100  # steps below which nobody expects a training to learn


class Health:
  """Looks at each row of training metrics, and tells of each fault once.

  Args:
    total_steps: of the training.
    chance: shares that guessing gets, by the names of metrics.
  """

  def __init__(self, total_steps: int, chance: Mapping[str, float]):
    self._total_steps, self._chance, self._told = total_steps, chance, set()

  def check(self, step: int, values: Mapping[str, float]) -> None:
    """Warns of what is wrong at `step` with {metric: value}."""
    done = self._done(step)
    for name, chance in self._chance.items() if done >= _CHANCE_AFTER else ():
      if at_chance(values[name], chance):
        self._tell(
          name,
          f"{name} is {values[name]:.3f} after {done:.0%} of the training, and "
          f"guessing gets {chance:.3f}: nothing is learned",
        )
    spreads = [name for name in values if name.endswith("feature_spread")]
    for name in spreads if done >= _COLLAPSE_AFTER else ():
      if values[name] < _COLLAPSED:
        text = f"{name} is {values[name]:.3f}: features of all videos are nearly alike"
        self._tell(name, f"{text}, the encoder has collapsed")

  def check_encoder(self, step: int, values: Mapping[str, float]) -> None:
    """Warns of an encoder that is no better than the untrained one beside it.

    Args:
      step: of the training.
      values: {'eval/<score>': share, 'eval/random_init/<score>': untrained}.
    """
    done, score = self._done(step), "online_knn_top1"
    value, untrained = (values.get(f"eval/{x}{score}") for x in ("", "random_init/"))
    if None not in (value, untrained) and done >= _CHANCE_AFTER and value <= untrained:
      self._tell(
        score,
        f"{score} is {value:.3f} after {done:.0%} of the training, and that of the "
        f"untrained network {untrained:.3f}: features are not getting better",
      )

  def _done(self, step):
    return step / self._total_steps if self._total_steps >= _TRIAL else 0.0

  def _tell(self, name, text):
    if name not in self._told and jax.process_index() == 0:  # all have the same values
      self._told.add(name)
      logger.warning("%s; %s, 'When nothing is learned', may help", text, PAGE)
