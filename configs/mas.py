"""MAS pretraining (Wang et al., CVPR 2019).

  python -m motion_jax.main --config=configs/mas.py           embedded videos
  ... --config=configs/mas.py:smoke                           3 steps, seconds
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

from ml_collections import ConfigDict

from motion_jax.config import parse_arg

WORDS = ("synthetic_actions", "smoke", "folder", "ucf101", "kinetics400")
# A network that learns this within minutes; the paper's is C3D.
NETWORKS = {"synthetic_actions": "r3d_10", "folder": "r3d_10"}


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="")
  network = arg.network or NETWORKS.get(arg.word, "c3d")
  config = ConfigDict()
  config.name = f"mas-{arg.word}"  # the run's folder is runs/<name>
  config.mode = "train"  # or 'evaluate': the last checkpoint of --workdir
  config.seed = 0
  config.method = method()
  config.data = data()
  config.model = model(network)
  config.optim = optim()
  config.train = train()
  config.eval = evaluation()

  match arg.word:
    case "synthetic_actions":
      small(config)
      config.data.canvas = (config.data.short_side,) * 2  # its videos are square
      # As in the journal version's code. Only motion tells these classes: with equal
      # weights retrieval (R@1, seed 0, clips at 25 frames per second) was 12.5 %, with
      # motion alone 25.0 %.
      config.method.appearance_weight = 0.1
    case "smoke":
      small(config)
      smoke(config)
    case "folder":
      small(config)
      config.data.name = "folder"
    case "ucf101":
      config.data.name = "ucf101"
    case "kinetics400":
      config.data.name = "kinetics400"
      config.data.canvas = (128, 228)  # up to 16:9
      config.optim.learning_rate = 5e-4  # section 4.1
      config.optim.drops = ("35%", "70%")  # every 7 epochs, section 4.1
      # Section 4.1. Of videos, a random clip of each; if the paper counts all clips of
      # 16 frames, as the code does for UCF101, it is some 18 times as long.
      config.train.duration = "20 epochs"
      config.eval.probe = False  # configs/evaluate.py does it on UCF101 or HMDB51
  return config


def method():
  return ConfigDict(
    dict(
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
      frames=16,  # section 4.1
      size=112,  # section 4.1
      flip=0.5,  # probability, section 4.1
      hidden=2048,  # of the two hidden layers of each head (code); 0: linear heads
      head_decay=0.005,  # L2 of the heads' weights (code)
      flow_warps=3,  # precision of the optical flow, see ops.flow.variational_flow
      flow_fixed_points=2,
      flow_iterations=10,
      flow_level=0,  # 1: at half the resolution
      mean=(0.45, 0.45, 0.45),  # the code takes 0 to 255 as they are: see models.c3d
      std=(0.225, 0.225, 0.225),
    )
  )


def data():
  return ConfigDict(
    dict(
      name="synthetic_actions",
      path="",  # of a folder of videos or frame folders
      train_list="",  # text file of `path [label]` lines; '': by heldout_fraction
      heldout_list="",
      heldout_fraction=0.1,
      heldout_by="class",  # that share of each sub-folder; 'file': of all files
      frame_folders=True,  # a folder of numbered images is a video; False: many images
      data_dir="",  # of prepared data sets; '': $TFDS_DATA_DIR or ~/tensorflow_datasets
      sampler="clip",
      interval=1,  # neighbouring frames, at ...
      fps=0.0,  # ... the video's own rate
      flow="",  # computed in every step; 'raft', 'variational': prepared, interval 1
      short_side=128,  # section 4.1: 128x171; the code squeezes all videos to that
      canvas=(128, 171),
      threads=8,  # that decode
      workers=0,  # processes that decode; for hosts with many cores
      max_bad_fraction=0.05,  # more files that cannot be decoded stop the run
    )
  )


def model(network):
  return ConfigDict(
    dict(
      name=network,
      width=64,  # channels of the first stage
      dtype="auto",  # bfloat16 on TPU and GPU, float32 on CPU
      lowering="auto",  # of 3D convolutions: 'native' or 'folded'
      precision="default",  # of float32 ones: 'high', 'highest'; see conv3d
      remat=False,  # recompute each stage in the backward pass: less memory
      bn_groups=1,  # C3D has no batch norm
    )
  )


def optim():
  return ConfigDict(
    dict(
      name="sgd",  # section 4.1
      learning_rate=1e-3,  # section 4.1
      # Times when the rate falls to a tenth (code); (): half cosine instead.
      drops=("25%", "50%", "75%"),
      warmup="0 steps",
      warmup_start=0.0,
      weight_decay=0.0,  # see method.head_decay
      b1=0.9,
      b2=0.999,
      momentum=0.9,  # code
      clip_norm=10.0,  # ours: squared errors of labels up to 16
    )
  )


def train():
  return ConfigDict(
    dict(
      duration="80000 steps",  # code: 20 passes over UCF101 cut into 16-frame clips
      batch_size=30,  # section 4.1
      accumulate_steps=1,  # parts of a batch, one after the other
      log_every=20,  # steps
      checkpoint_every="5%",
      keep=2,  # latest checkpoints
      best="",
      allow_config_change=False,
      skip_damaged=False,  # put damaged checkpoints aside, go on from the one before
    )
  )


def evaluation():
  return ConfigDict(
    dict(
      every="5%",  # of the training: the pretext task on held-out videos
      batch_size=16,
      max_sources=1600,
      # What the encoder is worth on labelled videos, where the data have labels:
      probe=True,  # retrieval and k-NN beside random initialisation
      linear=True,  # and a linear classifier
      test_every="0 steps",  # in any case at the end
      clips=10,  # per video
      max_videos=0,  # of each split, a share of every class; 0: all
      crop_ratio=0.875,  # side of the square crop, of the short side: 112 of 128
    )
  )


def small(config):
  """R3D-10 of width 8 on 8x32x32 clips: minutes on two CPU cores.

  Other networks: width 16, 8x64x64.
  """
  sizes = (8, 32, 40) if config.model.name == "r3d_10" else (16, 64, 80)
  config.model.width, config.method.size, config.data.short_side = sizes
  config.method.frames = 8
  config.method.hidden = 0  # as the journal version's code, for its pooled networks
  config.method.head_decay = 0.0
  config.method.flow_warps = 2
  config.method.flow_fixed_points = 1
  config.data.canvas = (config.data.short_side, config.data.short_side * 16 // 9)
  config.data.interval = 4
  config.data.fps = 30.0  # as in fine-tuning
  config.optim.name = "adam"
  config.optim.drops = ()
  config.optim.learning_rate = 3e-3
  config.optim.warmup = "20 steps"
  config.train.batch_size = 64
  config.train.duration = "300 steps"
  config.train.checkpoint_every = "100 steps"
  config.eval.every = "100 steps"
  config.eval.batch_size = 64
  config.eval.clips = 2


def smoke(config):
  """Three steps of the smallest network."""
  config.data.name = "synthetic_actions:tiny"
  config.model.width = 8
  config.method.frames = 4
  config.method.size = 32
  config.method.hidden = 32
  config.data.short_side = 37
  config.data.canvas = (37, 49)
  config.optim.warmup = "1 steps"
  config.train.batch_size = 8
  config.train.duration = "3 steps"
  config.train.log_every = 1
  config.train.checkpoint_every = "2 steps"
  config.eval.every = "3 steps"
  config.eval.batch_size = 8
  config.eval.max_sources = 8


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
