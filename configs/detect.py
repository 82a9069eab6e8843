"""Action detection on AVA, from a pretrained encoder (MoDist's table 5).

  python -m motion_jax.main --config=configs/detect.py --config.init_from=runs/modist
  ... --config=configs/detect.py:ava,scratch                 random initialisation
  ... --config=configs/detect.py:smoke                       3 steps of a small network

Needs AVA, with the boxes of a person detector; see python -m motion_jax.prepare --help.
`init_from` is the folder of a run, one of its checkpoints, or a PyTorch file. Sections
and tables are MoDist's (Xiao et al., 2021); 'SF' is SlowFast's recipe for AVA.
"""

from motion_jax.config import parse_arg
from motion_jax.recipe import recipe

WORDS = ("ava", "smoke")


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="r3d_50", scratch=False)
  name = f"detect-{arg.word}-{arg.network}" + "-scratch" * arg.scratch
  return recipe(name, arg, TABLES)


# Those that the argument asks for, in order: a later one wins; see motion_jax/recipe.py
# fmt: off
TABLES = {
  "": dict(
    init_from="",  # folder of a run, a checkpoint, a PyTorch file, or 'scratch'
    method=dict(
      name="detect",
      actions=80,  # trained; 60 of them are evaluated
      frames=8,  # section 4.4: 8x8
      size=224,  # SF
      short_sides=(256, 320),  # SF: frames are resized to, before the crop
      flip=0.5,  # SF
      mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225),  # SF
      dropout=0.5,  # SF
    ),
    data=dict(
      name="ava",
      max_people=16,  # of a frame: in training the annotated ones first
      # SF: of training frames, detected boxes, too, that overlap annotated ones as much
      detected_iou=0.9,  # 0: without
      interval=8,  # frames between those of a clip (section 4.4), at ...
      fps=30.0,  # ... this rate
      short_side=256,  # SF
      canvas=(256, 608),  # up to 2.375:1; of wider movies the middle; multiples of 32
    ),
    model=dict(bn_groups=8),  # batch norm over 8 clips, as on each of 8 GPUs (SF)
    optim=dict(
      name="sgd", momentum=0.9,  # SF
      learning_rate=0.1,  # section 4.4
      warmup="5 epochs", warmup_start=1.25e-4,  # SF
      drops=("10 epochs", "15 epochs"),  # SF
      weight_decay=1e-7,  # SF
    ),
    train=dict(
      duration="20 epochs", batch_size=64,  # section 4.4
      best="",  # the last one is what the paper reports
    ),
    eval=dict(
      every="25%",  # of the training: binary cross entropy on annotated people
      batch_size=8,  # key frames
      max_sources=512,  # of them; 0: all
      test_every="0 steps",  # frame mAP; in any case at the end
      person_score=0.9,  # SF: least score of a detected person
      clips=1,  # of a video, and ...
      crop_ratio=1.0,  # ... its square, where features of the encoder are asked for
    ),
  ),
  "smoke": dict(  # three steps of a small network on any AVA that is prepared
    init_from="scratch",
    method=dict(frames=4, size=32, short_sides=(32, 40)),
    data=dict(short_side=32, canvas=(32, 64), max_people=4),
    model=dict(name="r2d3d_18", width=8, bn_groups=1),
    optim=dict(learning_rate=0.01, warmup="1 steps"),
    train=dict(
      batch_size=2, duration="3 steps", log_every=1, checkpoint_every="3 steps",
    ),
    eval=dict(every="3 steps", batch_size=2, max_sources=0),
  ),
  "scratch": dict(init_from="scratch"),
}
# fmt: on


def sweep():
  """What the paper starts from, as (config argument, overrides)."""
  yield "ava", {}
  yield "ava,scratch", {}
