"""Supervised training on Kinetics-400, beside MoDist in tables 4 to 6 of its paper.

  python -m motion_jax.main --config=configs/supervised.py          kinetics400
  ... --config=configs/supervised.py:kinetics400,network=r2d3d_18   any 3D network

The paper gives no recipe for it; this is SlowFast's of its Slow network, 8x8 ('SF'),
with the network of MoDist. What has no comment is as in configs/finetune.py, recipe
modist.
"""

from motion_jax.config import parse_arg
from motion_jax.recipe import CLASSIFY, SUBSET, recipe

WORDS = ("kinetics400",)


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="r3d_50")
  return recipe(f"supervised-{arg.word}", arg, TABLES, CLASSIFY, SUBSET)


# fmt: off
TABLES = {
  "": dict(
    init_from="scratch",
    method=dict(
      frames=8,  # SF, with the next ones
      size=224,
      area=(0.2756, 0.4307),  # squares of 224 in frames of 256 to 320 pixels
      aspect=(1.0, 1.0),
      brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, grayscale=0.0,
      dropout=0.5,
    ),
    data=dict(
      name="kinetics400",
      interval=8,
      short_side=256, canvas=(256, 455),  # up to 16:9
    ),
    model=dict(bn_groups=8),  # as on each of 8 GPUs
    optim=dict(
      name="sgd",
      learning_rate=0.1,  # for a batch of 64
      warmup="34 epochs", warmup_start=0.01,
      weight_decay=1e-4,
    ),
    train=dict(duration="196 epochs", batch_size=64),
    # As in MoDist's fine-tuning on UCF101.
    eval=dict(batch_size=8, crops=3, crop_ratio=1.0, size=256, place_scores=True),
  ),
}
# fmt: on


def sweep():
  """The network that the paper compares with, as (config argument, overrides)."""
  yield "kinetics400", {}
