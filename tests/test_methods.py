"""Settings that no method can work with are refused by the names of their keys."""

import math

import numpy as np
import pytest
import tiny
from test_config import CONFIGS, load

from motion_jax.config import UserError
from motion_jax.methods import base, make_method

NAMES = ("mosi", "modist", "mas", "joint", "finetune", "detect")
CONFIG = {name: load(CONFIGS / f"{name}.py").get_config("smoke") for name in NAMES}
CONFIG["finetune"].method.classes = 10
MAY_BE_NEGATIVE = ("mean",)


def wrong(key, value):
  """Values of the same type that a key cannot take."""
  if isinstance(value, bool):
    return []
  if isinstance(value, int):
    return [-1]
  if isinstance(value, float):
    return [-1.0, math.nan]
  if isinstance(value, str):
    return ["nonsense"]
  if value and isinstance(value[0], str):
    return [("nonsense",)]
  pairs = [value[:1], (*value, value[-1]), ("a",) * len(value)]
  negative = tuple(-1 * type(number)(1) for number in value)
  return (
    pairs if key in MAY_BE_NEGATIVE else [*pairs, negative, (math.nan,) * len(value)]
  )


def cases():
  for name, config in CONFIG.items():
    for section in ("method", "model", "mosi", "modist", "mas"):
      for key, value in config.get(section, {}).items():
        if (section, key) == ("method", "name") or key == "class_names":
          continue  # names the method; any names
        yield name, section, key, value


@pytest.mark.parametrize(("name", "section", "key", "value"), [*cases()])
def test_a_wrong_setting_is_refused_by_its_name(name, section, key, value):
  for bad in wrong(key, value):
    config = CONFIG[name].copy_and_resolve_references()
    config[section][key] = bad
    with pytest.raises(UserError, match=rf"\b{key}\b"):
      make_method(config)


@pytest.mark.parametrize(
  ("name", "settings", "told"),
  [
    ("mosi", {"method.frames": 1}, "method.frames=1"),
    ("mosi", {"method.distance_jitter": (1.0, 3.0)}, "method.distance_jitter .* <= 2"),
    ("mosi", {"method.axes": "x", "method.decoupled": False}, "method.decoupled"),
    ("modist", {"method.size": 5}, "method.size=5 is too small"),
    ("mas", {"method.size": 20}, "method.size=20: .* multiple of 16"),
    ("joint", {"mosi.speeds": 0}, "mosi .*speeds=0 must be at least 1"),
    ("detect", {"model.name": "c3d"}, "model.name.*'c3d'.*slow_r50"),
  ],
)
def test_settings_that_do_not_fit_each_other_are_refused(name, settings, told):
  config = CONFIG[name].copy_and_resolve_references()
  config.update_from_flattened_dict(settings)
  with pytest.raises(UserError, match=told):
    make_method(config)


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"mask": None}, "Regression must have .* 'mask' among them.*valid.*'loss': .8,"),
    ({"loss": np.zeros(())}, r"a value per network input each.*'loss': \(\)"),
    ({"mask": np.ones(4, bool)}, r"repeated for every clip.*'mask': \(4,\)"),
    ({"loss": None, "target": np.zeros(8)}, "Regression lack 'loss'"),
  ],
)
def test_outputs_that_metrics_cannot_be_made_of_are_told(changes, told):
  outputs = {"loss": np.zeros(8), "mask": np.ones(8, bool)} | changes
  outputs = {name: array for name, array in outputs.items() if array is not None}
  with pytest.raises(ValueError, match=told):
    tiny.Regression().measured(outputs)


def test_keys_that_every_method_needs_are_named():
  config = load(CONFIGS / "mas.py").get_config("smoke")
  del config.data["fps"], config.method["mean"]
  with pytest.raises(UserError, match=r"lacks method\.mean, data\.fps"):
    make_method(config)


def test_a_loss_of_another_shape_than_its_mask_is_refused():
  """Of [B] labels beside [B, 1] outputs, which numpy's rules make [B, B]."""
  with pytest.raises(ValueError, match=r"\(8, 8\) and their mask \(8,\)"):
    base.masked_mean(np.zeros((8, 8)), np.ones(8, bool))
