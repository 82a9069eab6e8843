"""MAS pretraining (Wang et al., CVPR 2019).

  python -m motion_jax.main --config=configs/mas.py           embedded videos
  ... --config=configs/mas.py:smoke                           3 steps, a trial
  ... --config=configs/mas.py:folder --config.data.path=DIR   your videos
  ... --config=configs/mas.py:ucf101                          kinetics400
  ... --config=configs/mas.py:ucf101,network=r3d_18           any 3D ResNet

Ablations: `--config.method.appearance=False` learns motion alone, `motion=False`
appearance alone (table 3); `patterns`, `local_labels`, `global_labels` as in tables 1
and 2. Optical flow is computed in every step; with `data.flow=raft`, `data.interval=1`
and `data.fps=0` it is read from what `python -m motion_jax.prepare flow --store=flow
--interval=1` made. The recipes
without a data set of the paper's (embedded, smoke, folder) are sized for two CPU cores.
Sections and tables are those of the paper; 'code' is the authors' released code.
"""

from motion_jax.config import parse_arg
from motion_jax.recipe import PRETRAIN, recipe

SMALL = "synthetic_actions|smoke|folder"
WORDS = (*SMALL.split("|"), "ucf101", "kinetics400")
# A network that learns this within minutes; the paper's is C3D.
NETWORKS = {"synthetic_actions": "r3d_10", "folder": "r3d_10"}


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="")
  arg.network = arg.network or NETWORKS.get(arg.word, "c3d")
  return recipe(f"mas-{arg.word}", arg, TABLES, PRETRAIN)


# Those that the argument asks for, in order: a later one wins; see motion_jax/recipe.py
# fmt: off
TABLES = {
  "": dict(
    method=dict(
      name="mas",
      motion=True,  # section 3.2: 14 labels
      appearance=True,  # section 3.3: 13 labels; joint in table 3
      patterns=("grid", "rings", "triangles"),  # 1, 2, 3 in table 1
      local_labels=True,  # of the patterns' regions; table 2
      global_labels=True,  # of the whole clip; table 2
      motion_weight=1.0,  # of the losses, section 3.4; the journal version's code ...
      appearance_weight=1.0,  # ... has 1 and 0.1
      objective="regression",  # section 3.4; ours: 'classification' of the same labels
      voting="soft",  # of directions: code; 'hard' sectors of 45 degrees: section 3.2
      colour="histogram",  # section 3.3; 'exact' RGB: the journal version's code
      frames=16, size=112,  # section 4.1
      flip=0.5,  # probability, section 4.1
      hidden=2048,  # of the two hidden layers of each head (code); 0: linear heads
      head_decay=0.005,  # L2 of the heads' weights (code)
      # Precision of the optical flow, see ops.flow.variational_flow.
      flow_warps=3, flow_fixed_points=2, flow_iterations=10,
      flow_level=0,  # 1: at half the resolution
      mean=(0.45, 0.45, 0.45),  # the code takes 0 to 255 as they are: see models.c3d
      std=(0.225, 0.225, 0.225),
    ),
    data=dict(
      interval=1, fps=0.0,  # neighbouring frames at the video's own rate
      flow="",  # computed in every step; 'raft', 'variational': prepared, interval 1
      short_side=128,  # section 4.1: 128x171; the code squeezes all videos to that
      canvas=(128, 171),
    ),
    model=dict(bn_groups=1),  # C3D has no batch norm
    optim=dict(
      name="sgd", learning_rate=1e-3,  # section 4.1
      drops=("25%", "50%", "75%"),  # code
      weight_decay=0.0,  # see method.head_decay
      momentum=0.9,  # code
      clip_norm=10.0,  # ours: squared errors of labels up to 16
    ),
    train=dict(
      duration="80000 steps",  # code: 20 passes over UCF101 cut into 16-frame clips
      batch_size=30,  # section 4.1
    ),
  ),
  SMALL: dict(  # width 16 on 8x64x64 clips
    method=dict(
      frames=8, size=64,
      hidden=0,  # as the journal version's code, for its pooled networks
      head_decay=0.0, flow_warps=2, flow_fixed_points=1,
    ),
    # 30 frames per second as in fine-tuning
    data=dict(short_side=80, canvas=(80, 142), interval=4, fps=30.0),
    model=dict(width=16),
    optim=dict(name="adam", drops=(), learning_rate=3e-3, warmup="20 steps"),
    train=dict(batch_size=64, duration="300 steps", checkpoint_every="100 steps"),
    eval=dict(every="100 steps", batch_size=64, clips=2),
  ),
  f"{SMALL},network=r3d_10": dict(  # width 8 on 8x32x32 clips: minutes on two CPU cores
    method=dict(size=32), model=dict(width=8),
    data=dict(short_side=40, canvas=(40, 71)),
  ),
  "synthetic_actions": dict(
    # As in the journal version's code. Only motion tells these classes: with equal
    # weights retrieval (R@1, seed 0, clips at 25 frames per second) was 12.5 %, with
    # motion alone 25.0 %.
    method=dict(appearance_weight=0.1),
    data=dict(canvas=(80, 80)),  # its videos are square
  ),
  "synthetic_actions,network=r3d_10": dict(data=dict(canvas=(40, 40))),
  "smoke": dict(  # three steps of the smallest network
    method=dict(frames=4, size=32, hidden=32),
    data=dict(name="synthetic_actions:tiny", short_side=37, canvas=(37, 49)),
    model=dict(width=8), optim=dict(warmup="1 steps"),
    train=dict(
      batch_size=8, duration="3 steps", log_every=1, checkpoint_every="2 steps",
    ),
    eval=dict(every="3 steps", batch_size=8, max_sources=8),
  ),
  "folder": dict(data=dict(name="folder")),
  "ucf101": dict(data=dict(name="ucf101")),
  "kinetics400": dict(
    data=dict(name="kinetics400", canvas=(128, 228)),  # up to 16:9
    optim=dict(learning_rate=5e-4, drops=("35%", "70%")),  # section 4.1: every 7 epochs
    # Section 4.1. Of videos, a random clip of each; if the paper counts all clips of 16
    # frames, as the code does for UCF101, it is some 18 times as long.
    train=dict(duration="20 epochs"),
    eval=dict(probe=False),  # configs/evaluate.py does it on UCF101 or HMDB51
  ),
}
# fmt: on


def sweep():
  """The paper's ablations of pretraining, as (config argument, overrides)."""
  motion = {"method.appearance": False}
  local = {"method.global_labels": False}
  yield "ucf101", {}  # table 3: joint; table 4
  yield "ucf101", motion  # table 3: motion; table 2: all patterns and global
  yield "ucf101", {"method.motion": False}  # table 3: appearance
  for pattern in ("grid", "rings", "triangles"):  # table 1
    yield "ucf101", {**motion, "method.patterns": (pattern,), **local}
  yield "ucf101", {**motion, **local}  # table 2: all patterns
  yield "ucf101", {**motion, "method.local_labels": False}  # table 2: global
  yield "kinetics400", {}  # table 4
