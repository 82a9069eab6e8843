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
  lacking = [
    f"{section}.{key}"
    for section, keys in NEEDED.items()
    for key in keys
    if key not in sections[section]
  ]
  if lacking:
    raise UserError(f"the config lacks {', '.join(lacking)}, which every method needs")
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
NEEDED = {
  "method": ("frames", "size", "mean", "std"),
  "model": ("name", "width"),
  "data": ("interval", "fps", "short_side", "canvas"),
}


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


_SHARE = _number("in [0, 1]", lambda x: 0 <= x <= 1)
_COUNT = _number("at least 1", lambda x: x >= 1)
_FROM_ZERO = _number("0 or more", lambda x: x >= 0)

_METHOD = {
  "actions": _COUNT,
  "appearance_weight": _FROM_ZERO,
  "area": _numbers(
    "(low, high) with 0 < low <= high <= 1", 2, lambda a, b: 0 < a <= b <= 1
  ),
  "aspect": _numbers("(low, high) with 0 < low <= high", 2, lambda a, b: 0 < a <= b),
  "axes": ("xy", "x", "y"),
  "blur": _SHARE,
  "blur_sigma": _numbers(
    "(low, high) with 0 <= low <= high", 2, lambda a, b: 0 <= a <= b
  ),
  "brightness": _SHARE,
  "colour": COLOURS,
  "contrast": _SHARE,
  "crop": ("resized", "plain"),
  "cross_negatives": ("query", "key"),
  "curriculum_steps": _FROM_ZERO,
  "distance_jitter": _numbers(
    "(low, high) with 0 < low <= 1 and low <= high",
    2,
    lambda a, b: 0 < a <= 1 and a <= b,
  ),
  "dropout": _number("in [0, 1)", lambda x: 0 <= x < 1),
  "embedding": _COUNT,
  "flip": _SHARE,
  "flow_fixed_points": _COUNT,
  "flow_iterations": _COUNT,
  "flow_level": _FROM_ZERO,
  "flow_warps": _COUNT,
  "frames": _COUNT,
  "grayscale": _SHARE,
  "head_decay": _FROM_ZERO,
  "hidden": _FROM_ZERO,
  "hue": _number("in [0, 0.5]", lambda x: 0 <= x <= 0.5),
  "jitter": _SHARE,
  "labels": ("joint", "separate"),
  "loss_cross": _FROM_ZERO,
  "loss_motion": _FROM_ZERO,
  "loss_visual": _FROM_ZERO,
  "mas_weight": _FROM_ZERO,
  "mask_ratio": _numbers(
    "(low, high) with 0 < low <= high <= 1", 2, lambda a, b: 0 < a <= b <= 1
  ),
  "mean": _numbers("3 numbers", 3, lambda *_: True),
  "modist_weight": _FROM_ZERO,
  "momentum": _SHARE,
  "mosi_every": _COUNT,
  "mosi_side": _COUNT,
  "mosi_weight": _FROM_ZERO,
  "motion_frames": _COUNT,
  "motion_weight": _FROM_ZERO,
  "objective": ("regression", "classification"),
  "projection_hidden": _FROM_ZERO,
  "projection_layers": _COUNT,
  "queue_size": _COUNT,
  "saturation": _SHARE,
  "short_sides": _numbers(
    "(low, high) with 0 < low <= high", 2, lambda a, b: 0 < a <= b
  ),
  "size": _COUNT,
  "speeds": _COUNT,
  "std": _numbers("3 numbers above 0", 3, lambda *values: min(values) > 0),
  "temperature": _number("above 0", lambda x: x > 0),
  "voting": VOTINGS,
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
_DATA = {
  "canvas": _numbers(
    "(height, width) in pixels",
    2,
    lambda *sides: min(sides) >= 1 and all(isinstance(x, int) for x in sides),
  ),
  "edge_scale": ("1", "10"),
  "short_side": _COUNT,
}
