"""When things happen in a training: its durations in steps, and its batch sizes."""

import dataclasses
import logging

from ml_collections import ConfigDict

from motion_jax.config import UserError, steps_of
from motion_jax.data.host import AUTO
from motion_jax.methods.settings import check_training_settings
from motion_jax.scale import sharding

logger = logging.getLogger("motion_jax")


@dataclasses.dataclass(frozen=True)
class Plan:
  """The durations of a config in train steps; steps count from 1.

  Attributes:
    total_steps: length of the training.
    checkpoint_every, eval_every: distances of checkpoints and evaluations.
    test_every: distance of the evaluations that the training ends with.
    warmup_steps, drops: see `optim.learning_rate`.
  """

  total_steps: int
  checkpoint_every: int
  eval_every: int
  test_every: int
  warmup_steps: int
  drops: tuple[int, ...]

  def is_last(self, step: int) -> bool:
    return step == self.total_steps

  def due(self, step: int, often: list, others: list) -> list:
    """Evaluators of a step: at times the first ones, at times and at the end all."""
    if self.is_last(step) or step % self.test_every == 0:
      return [*often, *others]
    return often if step % self.eval_every == 0 else []

  def is_checkpoint(self, step: int) -> bool:
    times = (self.checkpoint_every, self.eval_every, self.test_every)
    return self.is_last(step) or any(step % every == 0 for every in times)


def make_plan(config: ConfigDict, examples: int) -> Plan:
  """Converts the durations of a config, and tells of those that have no effect.

  A warm-up longer than half the training becomes a tenth of it: the rate meets a cosine
  that falls to zero, and would never be near `optim.learning_rate`.

  Args:
    config: a whole config.
    examples: records in an epoch.

  Raises:
    UserError: for texts that are no durations, and a training without a step.
  """
  train = config.train
  length = dict(examples=examples, batch_size=train.batch_size)
  total_steps = steps_of(train.duration, **length)
  if not total_steps:
    raise UserError(f"train.duration={train.duration!r} must be at least one step")
  length["total_steps"] = total_steps
  plan = Plan(
    total_steps=total_steps,
    checkpoint_every=max(1, steps_of(train.checkpoint_every, **length)),
    eval_every=max(1, steps_of(config.eval.every, **length)),
    test_every=steps_of(config.eval.test_every, **length) or total_steps,
    warmup_steps=steps_of(config.optim.warmup, **length),
    drops=tuple(steps_of(time, **length) for time in config.optim.drops),
  )
  _tell_of_no_effect(config, plan)
  # Without drops a cosine falls meanwhile, and the warm-up ends where it has come to.
  longest = total_steps - 1 if plan.drops else total_steps // 2
  if plan.warmup_steps <= longest:
    return plan
  short = max(1, total_steps // 10) if total_steps > 1 else 0
  logger.warning(
    "optim.warmup=%s is %d of %d steps: shortened to %d, or optim.learning_rate would "
    "hardly be reached",
    *(config.optim.warmup, plan.warmup_steps, total_steps, short),
  )
  return dataclasses.replace(plan, warmup_steps=short)


def _tell_of_no_effect(config, plan):
  """Warns, a line each, of times that lie beyond the end of the training."""
  late = "comes after the end: without effect"
  only_last = "is longer than that: at the end alone"
  times = [
    ("optim.drops", late, max(plan.drops, default=-1) + 1),  # counts from 0
    ("eval.every", only_last, plan.eval_every),
    ("eval.test_every", only_last, plan.test_every),
    ("train.checkpoint_every", only_last, plan.checkpoint_every),
    ("train.log_every", only_last, config.train.log_every),
  ]
  growing = "ends after the training, which never sees the full difficulty"
  for section in ("method", "mosi"):  # of MoSI alone, or as a part of a joint training
    steps = config.get(section, {}).get("curriculum_steps", 0)
    times.append((f"{section}.curriculum_steps", growing, steps))
  for name, what, step in times:
    if step > plan.total_steps:
      section, key = name.split(".")
      logger.warning(
        "the training has %d steps; %s=%s %s",
        *(plan.total_steps, name, config[section][key], what),
      )


def check_batch(config: ConfigDict, devices: int) -> None:
  """Raises UserError for what no training can do without, and batches that do not fit.

  These must suit the devices and each other.
  """
  check_training_settings(config)
  train = config.train
  for name in (
    "train.accumulate_steps",
    "train.log_every",
    "model.bn_groups",
    "model.width",
    "eval.batch_size",
  ):
    section, key = name.split(".")
    if config[section][key] < 1:
      raise UserError(f"{name}={config[section][key]} must be at least 1")
  for key, least in (("threads", 1), ("workers", 0)):
    if config.data[key] < least and config.data[key] != AUTO:
      raise UserError(
        f"data.{key}={config.data[key]} must be at least {least}, or {AUTO}: by the "
        "host's cores"
      )
  multiple = devices * train.accumulate_steps
  reason = f"{devices} devices x train.accumulate_steps={train.accumulate_steps}"
  sharding.check_batch_size("train.batch_size", train.batch_size, multiple, reason)
  groups = config.model.bn_groups
  part = train.batch_size // train.accumulate_steps
  if part % groups:
    fitting = [count for count in range(1, part + 1) if part % count == 0]
    nearest = [count for count in fitting if count < groups][-1:]
    nearest += [count for count in fitting if count > groups][:1]
    raise UserError(
      f"model.bn_groups={groups} must divide the {part} sources that are processed "
      "together (train.batch_size / train.accumulate_steps); try "
      f"{' or '.join(map(str, nearest))}"
    )
