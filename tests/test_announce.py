"""The table of stages that a training begins with."""

import jax
import pytest
import tiny
import tiny_main
from test_config import CONFIGS, load

from motion_jax.data.absent import with_classes
from motion_jax.data.inputs import Sources
from motion_jax.data.sources import Source
from motion_jax.methods import make_method
from motion_jax.models.common import parameter_count
from motion_jax.training.announce import announce, stages


def smoke(name, **method):
  config = load(CONFIGS / f"{name}.py").get_config("smoke")
  config.method.update(method)
  return make_method(with_classes(config))


@pytest.mark.parametrize(
  ("name", "options"),
  [("mosi", {}), ("modist", {}), ("finetune", {"frozen_stages": 2})],
)
def test_the_stages_and_the_rest_are_all_parameters(name, options):
  method = smoke(name, **options)
  params, aux = jax.eval_shape(method.init, jax.random.key(0))
  *rows, last = stages(method, params, aux)
  others = last.split()[-1]
  encoder = [row.split() for row in rows]
  assert [row[0] for row in encoder] == [*(f"conv{n}" for n in range(1, 6)), "pooled"]
  counts = [int(row[1].replace(",", "")) for row in encoder]
  held = parameter_count(params) + parameter_count(aux.get("frozen", {}))
  assert sum(counts) + int(others.replace(",", "")) == held
  features = int(encoder[-1][2])
  assert encoder[-2][2].endswith(f"x{features}") and counts[-1] == 0
  assert parameter_count(method.encoder(params, aux)) == sum(counts)


@pytest.mark.parametrize(
  ("steps", "held_out", "fraction", "told"),
  [
    (
      3,
      2,
      0.1,
      ["3 steps hardly teach", "2 held-out videos say little, each is 50 % of"],
    ),
    (200, 2, 0.3, ["2 held-out videos say little, each is 50 %"]),
    (200, 30, 0.1, []),
  ],
)
def test_a_classifier_of_few_videos_is_warned_of(
  steps, held_out, fraction, told, caplog
):
  method = smoke("finetune")
  method.config.data.name = "folder"
  method.config.data.heldout_fraction = fraction
  weights = jax.eval_shape(method.init, jax.random.key(0))
  sources = Sources(Source("videos", "train", None, ["a"], [0]), None)
  about = (method.config, method, weights, sources, held_out, (0, steps), "run")
  announce(*about)
  assert len(caplog.messages) == len(told)
  for line, words in zip(caplog.messages, told, strict=True):
    assert line.startswith(words)
  advised = "heldout_fraction=0.3 takes more" in caplog.text
  assert advised == (bool(told) and fraction < 0.3)


def test_what_has_no_stages_has_no_table():
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  assert stages(tiny.Frozen(config), *tiny.Frozen.TRAINED) == []
  assert stages(tiny_main.Pictures(config), {}, {}) == []
