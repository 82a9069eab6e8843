"""Supervised training of a pretrained encoder: fine-tuning, linear probe, scratch.

  python -m motion_jax.main --config=configs/finetune.py --config.init_from=RUN
  ... --config=configs/finetune.py:synthetic_actions,linear ...    backbone frozen
  ... --config=configs/finetune.py:synthetic_actions,scratch  random initialisation
  ... --config=configs/finetune.py:folder --config.data.path=DIR  a folder per class
  ... --config=configs/finetune.py:folder,network=r2d3d_18 ...     of another network
  ... --config=configs/finetune.py:hmdb51 --config.init_from=runs/mosi-hmdb51     ucf101
  ... --config=configs/finetune.py:ucf101,network=r2plus1d_10 MoSI's other network
  ... --config=configs/finetune.py:ucf101,recipe=modist,linear    MoDist's protocol
  ... --config=configs/finetune.py:ucf101,recipe=mas              MAS's, with C3D
  ... --config=configs/finetune.py:something_something_v2[,linear]  MoDist's table 4
  ... --config=configs/finetune.py:smoke                      3 steps, a trial

`init_from` is the folder of a run, one of its checkpoints (RUN/checkpoints/120),
or a PyTorch file. `method.frozen_stages` = 1..5 freezes the first stages (figure 6 of
MoSI), `data.per_class` and `data.fraction` take fewer labels (table 3 of MoSI, table 6
of MoDist). Sections and tables are MoSI's (Huang et al., CVPR 2021); 'code' is the
first public release of its authors' code.
"""

from motion_jax.config import choose, parse_arg
from motion_jax.recipe import CLASSIFY, SUBSET, recipe

NETWORKS = {"mosi": "r2d3d_18", "modist": "r3d_50", "mas": "c3d"}  # by recipe
SSV2 = "something_something_v2"
SMALL = "synthetic_actions|smoke|folder"
WORDS = (*SMALL.split("|"), "ucf101", "hmdb51", SSV2)
SMALL_NETWORKS = {"synthetic_actions": "r3d_10", "folder": "r3d_10"}
NO_JITTER = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, grayscale=0.0)


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, recipe="", network="", linear=False, scratch=False)
  small = "" if arg.recipe else SMALL_NETWORKS.get(arg.word)
  arg.recipe = arg.recipe or {SSV2: "modist"}.get(arg.word, "mosi")
  of_recipe = NETWORKS[choose("recipe", arg.recipe, [*NETWORKS])]
  arg.network = arg.network or small or of_recipe
  name = f"finetune-{arg.word}-{arg.network}"
  name += "-linear" * arg.linear + "-scratch" * arg.scratch
  return recipe(name, arg, TABLES, CLASSIFY, SUBSET)


def rate(value):  # code: the warm-up begins with a tenth
  return dict(learning_rate=value, warmup_start=value / 10)


# Those that the argument asks for, in order: a later one wins; see motion_jax/recipe.py
# fmt: off
TABLES = {
  "": dict(  # MoSI's
    method=dict(
      frames=16, size=112, flip=0.5, dropout=0.5,  # section 4.1
      area=(0.3243, 0.5765),  # code: 168^2 to 224^2 of 256 x 340 pixels
      aspect=(6 / 7, 7 / 6),  # code
      # Colour jitter: code, one draw for all frames of a clip.
      brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25,
      grayscale=0.3,  # probability
    ),
    data=dict(
      interval=4, fps=30.0,  # code
      short_side=171,  # a square crop of the least area then has 112 pixels
      canvas=(171, 304),  # room for frames up to 16:9, wide or high; larger: cropped
    ),
    model=dict(bn_groups=8),  # 128 (48) clips in each, as on each of 8 GPUs (code)
    optim=dict(
      name="adam",  # with coupled L2, section 4.1 and code
      **rate(2e-3),  # code: for a batch of 1024 on HMDB51
      warmup="10 epochs", drops=(),  # section 4.1: half cosine
      weight_decay=1e-3,  # code
    ),
    train=dict(
      duration="300 epochs",  # section 4.1
      batch_size=1024,  # code: 8 x 128
      best="",  # the last one is what the papers report
    ),
  ),
  # Rates are linear in the batch, and on UCF101 twice those on HMDB51 but for random
  # initialisation (code). Linear probes are ours: neither MoSI nor MAS has one.
  "network=r2plus1d_10": dict(optim=rate(7.5e-4), train=dict(batch_size=384)),  # 8 x 48
  "recipe=mosi|recipe=mas,linear": dict(optim=rate(4e-3)),
  "linear,network=r2plus1d_10": dict(optim=rate(1.5e-3)),
  # All videos of UCF101 are 320x240.
  "ucf101": dict(data=dict(name="ucf101", canvas=(171, 228)), optim=rate(4e-3)),
  "ucf101,network=r2plus1d_10": dict(optim=rate(1.5e-3)),
  "ucf101,linear": dict(optim=rate(8e-3)),
  "ucf101,linear,network=r2plus1d_10": dict(optim=rate(3e-3)),
  "ucf101,scratch,recipe=mosi": dict(optim=rate(2e-3)),
  "ucf101,scratch,recipe=mosi,network=r2plus1d_10": dict(optim=rate(7.5e-4)),
  "ucf101,scratch,recipe=mosi,linear": dict(optim=rate(4e-3)),
  "ucf101,scratch,recipe=mosi,linear,network=r2plus1d_10": dict(optim=rate(1.5e-3)),
  # MoDist (Xiao et al., 2021), section 4.1; 'SF' is SlowFast's UCF101 recipe. Table 3
  # of the paper uses 8 frames: --config.method.frames=8.
  "recipe=modist": dict(
    method=dict(
      frames=32, size=224, dropout=0.8,
      area=(0.37, 0.58),  # SF: squares of 224 in frames of 256 to 320 ...
      aspect=(1.0, 1.0),  # ... pixels, here by area of a 4:3 frame
      brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2,  # SF
    ),
    data=dict(interval=8, short_side=256, canvas=(256, 455)),
    model=dict(bn_groups=1),
    # SF: for a batch of 64
    optim=dict(name="sgd", learning_rate=0.01, weight_decay=0.0, warmup="0 steps"),
    train=dict(batch_size=64, duration="200 epochs"),
    # 8 clips of 32 frames, times three crops; scores: SF
    eval=dict(batch_size=8, crops=3, crop_ratio=1.0, size=256, place_scores=True),
  ),
  "recipe=modist,ucf101": dict(data=dict(canvas=(256, 341))),
  # MAS (Wang et al., CVPR 2019), section 4.1; 'code' is the authors'. 20 passes over
  # all 16-frame clips; a video gives one clip per epoch here, those of UCF101 have 12.6
  # (code: 80,000 steps), those of HMDB51 about 95 frames.
  "recipe=mas": dict(
    # head_decay: code
    method=dict(frames=16, size=112, crop="plain", head_decay=0.005, **NO_JITTER),
    data=dict(interval=1, fps=0.0, short_side=128, canvas=(128, 227)),  # code: 171x128
    model=dict(bn_groups=1),
    optim=dict(
      name="sgd", learning_rate=1e-3, weight_decay=0.0, warmup="0 steps",
      drops=("25%", "50%", "75%"),  # code, section 4.1
    ),
    train=dict(batch_size=30, duration="252 epochs"),
    eval=dict(clips=0),  # all clips without overlap, as far as the paper tells
  ),
  "recipe=mas,linear": dict(optim=dict(learning_rate=2e-3)),
  "recipe=mas,ucf101": dict(data=dict(canvas=(128, 170))),
  "recipe=mas,hmdb51": dict(train=dict(duration="118 epochs")),
  "hmdb51": dict(data=dict(name="hmdb51")),  # wider videos are cropped
  # A frame of each part of a video, one view, no flips; 'SF' is SlowFast's recipe for
  # this data set. MoDist's schedule (section 4.4) is that of both protocols.
  SSV2: dict(
    method=dict(segments=True, flip=0.0),  # SF; many actions are the mirror of others
    data=dict(name=SSV2),
    eval=dict(clips=1, crops=1),  # SF
  ),
  f"{SSV2},recipe=modist": dict(
    method=dict(
      frames=16,  # section 4.4: 16x8
      area=(0.2756, 0.4307),  # SF: squares as above, here by area of a 16:9 frame
      dropout=0.5, **NO_JITTER,  # SF
    ),
    optim=dict(
      learning_rate=0.03, warmup="0.19 epochs", warmup_start=1e-4,  # section 4.4
      drops=("14 epochs", "18 epochs"),  # section 4.4
      weight_decay=1e-6,  # SF
    ),
    train=dict(batch_size=16, duration="22 epochs"),  # section 4.4
  ),
  SMALL: dict(  # width 16 on 8x64x64 clips
    method=dict(frames=8, size=64),
    data=dict(short_side=80, canvas=(80, 143), interval=4, fps=30.0),
    model=dict(width=16, bn_groups=1),
    optim=dict(
      name="adam", **rate(2e-3), warmup="20 steps", drops=(), weight_decay=1e-4,
    ),
    train=dict(batch_size=32, duration="8 epochs", checkpoint_every="25%"),
    eval=dict(every="50%", batch_size=32, size=0),
  ),
  f"{SMALL},network=r3d_10": dict(  # width 8 on 8x32x32 clips: minutes on two CPU cores
    method=dict(size=32), model=dict(width=8),
    data=dict(short_side=40, canvas=(40, 72)),
  ),
  f"{SMALL},linear": dict(optim=rate(4e-3)),
  "folder": dict(data=dict(name="folder")),
  "smoke": dict(  # three steps of the smallest network, from scratch
    init_from="scratch",
    method=dict(frames=4, size=32),
    data=dict(name="synthetic_actions:tiny", short_side=40, canvas=(40, 72)),
    model=dict(width=8), optim=dict(warmup="1 steps"),
    train=dict(
      batch_size=8, duration="3 steps", log_every=1, checkpoint_every="2 steps",
    ),
    eval=dict(every="3 steps", batch_size=8, clips=2),
  ),
  "linear": dict(  # everything but the classifier is frozen
    method=dict(frozen_stages=5, dropout=0.0, head_decay=0.0),
    optim=dict(weight_decay=0.0),
  ),
  "linear,recipe=modist,ucf101|hmdb51": dict(
    # SF: for a batch of 64; open: the warm-up's start, a tenth
    optim=dict(learning_rate=0.5, warmup="8 epochs", warmup_start=0.05),
    train=dict(duration="60 epochs"),
  ),
  "scratch": dict(init_from="scratch"),
}
# fmt: on


def sweep():
  """The papers' ablations of fine-tuning, as (config argument, overrides).

  Each needs `init_from` besides.
  """
  # MoSI, table 3; open: the batch stays at 1024, several times 153 videos (3 a class).
  for count in (3, 5, 7, 9, 11, 13):
    yield "hmdb51", {"data.per_class": count}
  for stages in range(6):  # MoSI, figure 6
    yield "hmdb51", {"method.frozen_stages": stages}
  yield "ucf101,recipe=modist", {"data.per_class": 1}  # MoDist, table 6: 1 %
  for percent in (5, 20, 40, 60, 80, 100):
    yield "ucf101,recipe=modist", {"data.fraction": percent / 100}
