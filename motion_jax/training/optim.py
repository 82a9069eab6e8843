"""Optimisers and learning-rate schedules from the `optim` section of a config."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from motion_jax.config import choose

OPTIMIZERS = ("adam", "adamw", "sgd")


def learning_rate(
  *,
  base: float,
  total_steps: int,
  warmup_steps: int = 0,
  warmup_start: float = 0.0,
  drops: Sequence[int] = (),
) -> optax.Schedule:
  """Half cosine per step, or falls to a tenth, after a linear warm-up that meets it.

  The warm-up ends at the schedule's value at its last step, not at `base` (MoSI's
  released schedule; Huang et al., CVPR 2021, section 4.1).

  Args:
    base: learning rate at step 0 without a warm-up.
    total_steps: step at which the cosine reaches zero.
    warmup_steps: length of the linear part; 0 for none.
    warmup_start: learning rate at step 0 when there is a warm-up.
    drops: steps at each of which the rate is divided by ten, instead of the cosine.

  Returns:
    A function from step (int, scalar) to learning rate (float32, scalar).
  """

  def after_warmup(step):
    if len(drops):
      return base * 0.1 ** jnp.sum(step >= jnp.asarray(drops))
    return base * (jnp.cos(jnp.pi * jnp.minimum(step / total_steps, 1.0)) + 1) / 2

  def schedule(step):
    share = step / max(1, warmup_steps)
    meeting = after_warmup(warmup_steps)
    warmup = warmup_start + (meeting - warmup_start) * share
    return jnp.where(step < warmup_steps, warmup, after_warmup(step))

  return schedule


def make_schedule(config: ConfigDict, plan) -> optax.Schedule:
  """The `learning_rate` of a section `optim`, with the durations of a `plan.Plan`."""
  return learning_rate(
    base=config.learning_rate,
    total_steps=plan.total_steps,
    warmup_steps=plan.warmup_steps,
    warmup_start=config.warmup_start,
    drops=plan.drops,
  )


def make_optimizer(config: ConfigDict, schedule: optax.Schedule):
  """Builds the optimiser.

  Weight decay never touches biases and normalisation parameters (arrays with fewer
  than two axes), as in MoSI's code. `adam` adds it to the gradient before the moments
  (coupled L2, `torch.optim.Adam`), `adamw` after them, `sgd` to the gradient.

  Args:
    config: `name` ('adam', 'adamw', 'sgd'), `weight_decay`, `momentum` (sgd),
      `b1`, `b2` (adam), `clip_norm` (0 for no clipping).
    schedule: step -> learning rate.

  Returns:
    An `optax.GradientTransformation`.

  Raises:
    UserError: for an unknown name.
  """
  name = choose("optim.name", config.name, OPTIMIZERS)
  decay = optax.add_decayed_weights(config.weight_decay, mask=is_decayed)
  adam = optax.scale_by_adam(b1=config.b1, b2=config.b2)
  parts = {
    "adam": (decay, adam),
    "adamw": (adam, decay),
    "sgd": (decay, optax.trace(decay=config.momentum)),
  }[name]
  clip = (optax.clip_by_global_norm(config.clip_norm),) if config.clip_norm else ()
  return optax.chain(*clip, *parts, optax.scale_by_learning_rate(schedule))


def is_decayed(params):
  """Which parameters weight decay applies to: those with two or more axes."""
  return jax.tree.map(lambda array: array.ndim > 1, params)
