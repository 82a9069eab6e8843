"""Supervised training on Kinetics-400, beside MoDist in tables 4 to 6 of its paper.

  python -m motion_jax.main --config=configs/supervised.py          kinetics400
  ... --config=configs/supervised.py:kinetics400,network=r2d3d_18   any 3D network

The paper gives no recipe for it; this is SlowFast's of its Slow network, 8x8 ('SF'),
with the network of MoDist. What is not named here is as in configs/finetune.py, recipe
modist.
"""

import pathlib
import runpy

from motion_jax.config import parse_arg

WORDS = ("kinetics400",)


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="r3d_50")
  path = pathlib.Path(__file__).with_name("finetune.py")
  recipe = runpy.run_path(str(path))["get_config"]
  config = recipe(f"ucf101,recipe=modist,network={arg.network},scratch")
  config.name = f"supervised-{arg.word}"  # the run's folder is runs/<name>
  config.data.name = arg.word
  config.data.canvas = (256, 455)  # up to 16:9
  config.method.frames = 8  # SF, with the next ones
  config.method.area = (0.2756, 0.4307)  # squares of 224 in frames of 256 to 320 pixels
  config.method.brightness = 0.0
  config.method.contrast = 0.0
  config.method.saturation = 0.0
  config.method.hue = 0.0
  config.method.grayscale = 0.0
  config.method.dropout = 0.5
  config.model.bn_groups = 8  # as on each of 8 GPUs
  config.optim.learning_rate = 0.1  # for a batch of 64
  config.optim.warmup = "34 epochs"
  config.optim.warmup_start = 0.01
  config.optim.weight_decay = 1e-4
  config.train.duration = "196 epochs"
  return config


def sweep():
  """The network that the paper compares with, as (config argument, overrides)."""
  yield "kinetics400", {}
