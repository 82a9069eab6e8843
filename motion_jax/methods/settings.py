"""Which values a method's settings take, one by one; what must fit together is checked
where it is used."""

import math
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.models import NETWORKS
from motion_jax.models.conv import LOWERINGS
from motion_jax.models.precision import DTYPES, PRECISIONS
from motion_jax.ops.appearance_statistics import COLOURS
from motion_jax.ops.motion_statistics import VOTINGS


def check_settings(config: ConfigDict, method: ConfigDict) -> None:
  """Refuses values that no network or operation can work with.

  Args:
    config: a whole config; its sections model and data are read.
    method: the section of the method.

  Raises:
    UserError: names the key, what it takes and what was found.
  """
  sections = {"method": method, "model": config.model, "data": config.data}
  _check_there(sections, _NEEDED)
  for section, rules in {"method": _METHOD, "model": _MODEL, "data": _DATA}.items():
    for key, rule in rules.items():
      if key not in sections[section]:
        continue
      name, value = f"{section}.{key}", sections[section][key]
      if not isinstance(rule, _Rule):
        choose(name, value, rule)
      elif not rule.holds(value):
        raise UserError(f"{name}={value!r} must be {rule.text}")


# What is read wherever clips are made for an encoder.
_NEEDED = {
  "method": ("frames", "size", "mean", "std"),
  "model": ("name", "width"),
  "data": ("interval", "fps", "short_side", "canvas"),
}
_TRAINING = {"optim": ("name", "learning_rate"), "train": ("duration", "batch_size")}


def check_training_settings(config: ConfigDict) -> None:
  """Raises UserError, naming them, for keys that every training needs."""
  _check_there(config, _TRAINING)


def _check_there(sections, needed):
  lacking = [
    f"{section}.{key}"
    for section, keys in needed.items()
    for key in keys
    if key not in sections[section]
  ]
  if lacking:
    raise UserError(f"the config lacks {', '.join(lacking)}, which every method needs")


class _Rule(NamedTuple):
  text: str
  holds: Callable


def _numbers(text, count, holds):
  """A rule for `count` finite numbers, for which `holds` is true."""

  def is_kept(values):
    are_numbers = all(
      isinstance(value, int | float) and math.isfinite(value) for value in values
    )
    return len(values) == count and are_numbers and holds(*values)

  return _Rule(text, is_kept)


def _number(text, holds):
  return _Rule(text, lambda value: math.isfinite(value) and holds(value))


_COUNT = _number("at least 1", lambda x: x >= 1)
_CANVAS = _numbers(
  "(height, width) in pixels",
  2,
  lambda *sides: min(sides) >= 1 and all(isinstance(x, int) for x in sides),
)
# The keys of a section by what they take: a rule, or words to choose from.
_METHOD = {
  key: rule
  for keys, rule in {
    "actions embedding flow_fixed_points flow_iterations flow_warps frames mosi_every "
    "mosi_side motion_frames projection_layers queue_size size speeds": _COUNT,
    "appearance_weight curriculum_steps flow_level head_decay hidden loss_cross "
    "loss_motion loss_visual mas_weight modist_weight mosi_weight motion_weight "
    "projection_hidden": _number("0 or more", lambda x: x >= 0),
    "blur brightness contrast flip grayscale jitter momentum saturation": _number(
      "in [0, 1]", lambda x: 0 <= x <= 1
    ),
    "dropout": _number("in [0, 1)", lambda x: 0 <= x < 1),
    "hue": _number("in [0, 0.5]", lambda x: 0 <= x <= 0.5),
    "temperature": _number("above 0", lambda x: x > 0),
    "area mask_ratio": _numbers(
      "(low, high) with 0 < low <= high <= 1", 2, lambda a, b: 0 < a <= b <= 1
    ),
    "aspect short_sides": _numbers(
      "(low, high) with 0 < low <= high", 2, lambda a, b: 0 < a <= b
    ),
    "blur_sigma": _numbers(
      "(low, high) with 0 <= low <= high", 2, lambda a, b: 0 <= a <= b
    ),
    "distance_jitter": _numbers(
      "(low, high) with 0 < low <= 1 and low <= high",
      2,
      lambda a, b: 0 < a <= 1 and a <= b,
    ),
    "mean": _numbers("3 numbers", 3, lambda *_: True),
    "std": _numbers("3 numbers above 0", 3, lambda *values: min(values) > 0),
    "axes": ("xy", "x", "y"),
    "colour": COLOURS,
    "crop": ("resized", "plain"),
    "cross_negatives": ("query", "key"),
    "labels": ("joint", "separate"),
    "objective": ("regression", "classification"),
    "voting": VOTINGS,
  }.items()
  for key in keys.split()
}
_MODEL = {
  "bn_groups": _COUNT,
  "dtype": DTYPES,
  "lowering": LOWERINGS,
  "motion_name": NETWORKS,
  "motion_width": _COUNT,
  "name": NETWORKS,
  "precision": PRECISIONS,
  "width": _COUNT,
}
_DATA = {"canvas": _CANVAS, "edge_scale": ("1", "10"), "short_side": _COUNT}
