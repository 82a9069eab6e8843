"""Action detection on AVA, from a pretrained encoder (MoDist's table 5).

  python -m motion_jax.main --config=configs/detect.py --config.init_from=runs/modist
  ... --config=configs/detect.py:ava,scratch                 random initialisation
  ... --config=configs/detect.py:smoke                       3 steps of a small network

Needs AVA, with the boxes of a person detector; see python -m motion_jax.prepare --help.
`init_from` is the folder of a run, one of its checkpoints, or a PyTorch file. Sections
and tables are MoDist's (Xiao et al., 2021); 'SF' is SlowFast's recipe for AVA.
"""

from ml_collections import ConfigDict

from motion_jax.config import parse_arg

WORDS = ("ava", "smoke")


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="r3d_50", scratch=False)
  config = ConfigDict()
  config.name = f"detect-{arg.word}-{arg.network}"
  config.mode = "train"  # or 'evaluate': the last checkpoint of --workdir
  config.seed = 0
  config.init_from = ""  # folder of a run, a checkpoint, a PyTorch file, or 'scratch'
  config.method = method()
  config.data = data()
  config.model = model(arg.network)
  config.optim = optim()
  config.train = train()
  config.eval = evaluation()
  if arg.word == "smoke":
    smoke(config)
  if arg.scratch:
    config.name += "-scratch"
    config.init_from = "scratch"
  return config


def method():
  return ConfigDict(
    dict(
      name="detect",
      actions=80,  # trained; 60 of them are evaluated
      frames=8,  # section 4.4: 8x8
      size=224,  # SF
      short_sides=(256, 320),  # SF: frames are resized to, before the crop
      flip=0.5,  # SF
      mean=(0.45, 0.45, 0.45),  # SF
      std=(0.225, 0.225, 0.225),  # SF
      dropout=0.5,  # SF
    )
  )


def data():
  return ConfigDict(
    dict(
      name="ava",
      path="",
      train_list="",
      heldout_list="",
      heldout_fraction=0.1,
      heldout_by="class",
      frame_folders=True,
      data_dir="",  # of prepared data sets; '': $TFDS_DATA_DIR or ~/tensorflow_datasets
      sampler="key_frames",
      max_people=16,  # of a frame: in training the annotated ones first
      # SF: of training frames, detected boxes, too, that overlap annotated ones as much
      detected_iou=0.9,  # 0: without
      interval=8,  # frames between those of a clip (section 4.4), at ...
      fps=30.0,  # ... this rate
      short_side=256,  # SF
      canvas=(256, 608),  # up to 2.375:1; of wider movies the middle; multiples of 32
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
      remat=False,  # recompute each block in the backward pass: less memory
      bn_groups=8,  # batch norm over 8 clips, as on each of 8 GPUs (SF)
    )
  )


def optim():
  return ConfigDict(
    dict(
      name="sgd",  # SF
      learning_rate=0.1,  # section 4.4
      warmup="5 epochs",  # SF
      warmup_start=1.25e-4,  # SF
      drops=("10 epochs", "15 epochs"),  # SF
      weight_decay=1e-7,  # SF
      b1=0.9,
      b2=0.999,
      momentum=0.9,  # SF
      clip_norm=0.0,  # 0: no clipping
    )
  )


def train():
  return ConfigDict(
    dict(
      duration="20 epochs",  # section 4.4
      batch_size=64,  # section 4.4
      accumulate_steps=1,  # parts of a batch, one after the other
      log_every=20,  # steps
      checkpoint_every="5%",
      keep=2,  # latest checkpoints
      best="",  # the last one is what the paper reports
      allow_config_change=False,
      skip_damaged=False,  # put damaged checkpoints aside, go on from the one before
    )
  )


def evaluation():
  return ConfigDict(
    dict(
      every="25%",  # of the training: binary cross entropy on annotated people
      batch_size=8,  # key frames
      max_sources=512,  # of them; 0: all
      test_every="0 steps",  # frame mAP; in any case at the end
      person_score=0.9,  # SF: least score of a detected person
      clips=1,  # of a video, and ...
      crop_ratio=1.0,  # ... its square, where features of the encoder are asked for
    )
  )


def smoke(config):
  """Three steps of a small network, from scratch, on any AVA that is prepared."""
  config.init_from = "scratch"
  config.model.name = "r2d3d_18"
  config.model.width = 8
  config.model.bn_groups = 1
  config.method.frames = 4
  config.method.size = 32
  config.method.short_sides = (32, 40)
  config.data.short_side = 32
  config.data.canvas = (32, 64)
  config.data.max_people = 4
  config.optim.learning_rate = 0.01
  config.optim.warmup = "1 steps"
  config.train.batch_size = 2
  config.train.duration = "3 steps"
  config.train.log_every = 1
  config.train.checkpoint_every = "3 steps"
  config.eval.every = "3 steps"
  config.eval.batch_size = 2
  config.eval.max_sources = 0


def sweep():
  """What the paper starts from, as (config argument, overrides)."""
  yield "ava", {}
  yield "ava,scratch", {}
