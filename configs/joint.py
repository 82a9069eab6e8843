"""MoSI, MoDist and MAS at once, on one network: beyond the papers.

  python -m motion_jax.main --config=configs/joint.py          embedded videos
  ... --config=configs/joint.py:smoke                          3 steps, a trial
  ... --config=configs/joint.py:folder --config.data.path=DIR  your videos
  ... --config=configs/joint.py:kinetics400                    ucf101
  ... --config=configs/joint.py:ucf101,network=r3d_18          any 3D ResNet
  ... --config.method.mas_weight=0                             the other two

One batch of videos serves all three. The sections `mosi`, `modist` and `mas` are the
`method` sections of the recipes of the same word in configs/mosi.py, configs/modist.py
and configs/mas.py, which tell what their numbers mean (`mosi.curriculum_steps` is the
same share of the training); what all share is in `method`. MoDist's motion is prepared
or computed as for configs/modist.py. Numbers of this file are ours.
"""

from motion_jax.config import parse_arg
from motion_jax.recipe import PRETRAIN, SUBSET, recipe

SMALL = "synthetic_actions|smoke|folder"
WORDS = (*SMALL.split("|"), "ucf101", "kinetics400")
NETWORKS = dict.fromkeys(SMALL.split("|"), "r3d_10")  # two CPU cores


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="")
  arg.network = arg.network or NETWORKS.get(arg.word, "r2d3d_18")
  return recipe(f"joint-{arg.word}", arg, TABLES, PRETRAIN, SUBSET)


# Those that the argument asks for, in order: a later one wins; see motion_jax/recipe.py
# fmt: off
TABLES = {
  "": dict(
    method=dict(
      name="joint",
      # Of the losses, which by chance are 2.2 (MoSI), 4 ln(queue_size) (MoDist) and 16
      # (MAS) where the weights of their own terms are 1; 0: without.
      mosi_weight=1.0, modist_weight=0.1, mas_weight=0.1,
      mosi_every=2,  # 1 in 2 videos is a source of MoSI, which gives 9 clips
      mosi_side=320,  # of these sources (the paper): frames of 160 pixels, enlarged
      frames=16, size=112,  # of all clips
      mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225),
    ),
    mosi=dict(
      speeds=2, axes="xy", static=True, decoupled=True, labels="joint",
      mask_ratio=(0.3, 0.5), distance_jitter=(1.0, 1.0), flip=True, compat_flip=False,
      brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, grayscale=0.3,
      jitter_per_frame=True, dropout=0.5, curriculum_steps=0,
    ),
    modist=dict(
      motion="edges", motion_frames=16, loss_visual=1.0, loss_motion=1.0,
      loss_cross=1.0, cross_negatives="query", temperature=0.1, momentum=0.999,
      queue_size=65536, embedding=128, projection_layers=2, projection_hidden=0,
      projection_norm=False, key_regroup=True, area=(0.2, 1.0), aspect=(3 / 4, 4 / 3),
      jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0, grayscale=0.2,
      blur=0.5, blur_sigma=(0.1, 2.0), flip=0.5,
      flow_warps=2, flow_fixed_points=1, flow_iterations=8,
    ),
    mas=dict(
      motion=True, appearance=True, patterns=("grid", "rings", "triangles"),
      local_labels=True, global_labels=True, motion_weight=1.0, appearance_weight=1.0,
      objective="regression", voting="soft", colour="histogram", flip=0.5, hidden=2048,
      head_decay=0.005,
      flow_warps=3, flow_fixed_points=2, flow_iterations=10, flow_level=0,
    ),
    data=dict(
      interval=2, motion_interval=2, fps=30.0, synchronised=False,
      flow="raft", flow_interval=5, flow_short_side=256, motion_threshold=0.02,
      edge_scale="1",
      short_side=160, canvas=(160, 284),  # up to 16:9
    ),
    model=dict(motion_name="motion_r50", motion_width=8, bn_groups=8),
    optim=dict(
      name="adam", learning_rate=1e-3, weight_decay=1e-4, warmup_start=1e-4,
      clip_norm=10.0,  # as in configs/mas.py
    ),
    train=dict(duration="20 epochs", batch_size=64, checkpoint_every="2%"),
    eval=dict(batch_size=64),
  ),
  "kinetics400": dict(
    data=dict(name="kinetics400"),
    optim=dict(warmup="2 epochs"),
    eval=dict(linear=False, test_every="10%", clips=2, max_videos=8000),
  ),
  "ucf101": dict(
    modist=dict(queue_size=8192),  # fewer than there are videos
    data=dict(name="ucf101", canvas=(160, 213)),  # all videos are 320x240
    optim=dict(warmup="10 epochs"),
    train=dict(duration="100 epochs"),
  ),
  # MoDist's small network and clips; MoSI sees as many as in its own.
  SMALL: dict(
    method=dict(frames=8, size=64, mosi_every=4, mosi_side=128),
    mosi=dict(dropout=0.0, curriculum_steps=130),
    modist=dict(
      motion_frames=8, area=(0.4, 1.0), blur_sigma=(0.1, 0.5), queue_size=512,
      momentum=0.9, projection_norm=True, cross_negatives="key",
    ),
    mas=dict(hidden=0, head_decay=0.0, flow_warps=2, flow_fixed_points=1),
    data=dict(
      interval=4, motion_interval=4, short_side=80, canvas=(80, 142),
      flow="variational", motion_threshold=0.0,
    ),
    model=dict(width=16, motion_name="r3d_10", bn_groups=4),
    # As MoDist's and MAS's; with 1e-3 MAS is still at chance halfway.
    optim=dict(learning_rate=3e-3, warmup="20 steps"),
    train=dict(duration="216 steps", checkpoint_every="108 steps"),
    eval=dict(every="108 steps", max_sources=64, clips=2, max_videos=320),
  ),
  f"{SMALL},network=r3d_10": dict(
    method=dict(size=32, mosi_side=64),
    data=dict(short_side=40, canvas=(40, 71)),
    model=dict(width=8),
  ),
  "synthetic_actions": dict(
    modist=dict(loss_visual=0.1, area=(0.8, 1.0), jitter=0.0, grayscale=0.0, blur=0.0),
    mas=dict(appearance_weight=0.1),
    data=dict(synchronised=True, flow_short_side=64),
  ),
  "smoke|folder": dict(
    modist=dict(motion="frame_difference"),
    data=dict(flow="", flow_interval=1),
  ),
  "folder": dict(data=dict(name="folder")),
  "smoke": dict(
    method=dict(frames=4, mosi_every=2),
    modist=dict(motion_frames=4, queue_size=64, embedding=16),
    mas=dict(hidden=32),
    data=dict(name="synthetic_actions:tiny"),
    optim=dict(learning_rate=1e-3, warmup="1 steps"),
    train=dict(
      batch_size=16,  # on up to 8 devices
      duration="3 steps", log_every=1, checkpoint_every="2 steps",
    ),
    eval=dict(every="3 steps", batch_size=16, max_sources=8, clips=1, max_videos=0),
  ),
}
# fmt: on


def sweep():
  """All, and without each of them, as (config argument, overrides)."""
  yield "ucf101", {}
  for name in ("mosi", "modist", "mas"):
    yield "ucf101", {f"method.{name}_weight": 0.0}
