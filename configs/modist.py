"""MoDist pretraining (Xiao et al., 2021).

  python -m motion_jax.main --config=configs/modist.py          embedded videos
  ... --config=configs/modist.py:smoke                          3 steps, seconds
  ... --config=configs/modist.py:folder --config.data.path=DIR  your videos
  ... --config=configs/modist.py:kinetics400                    or kinetics400_mini
  ... --config=configs/modist.py:kinetics400,network=r3d_18     the paper's smaller one
  ... :kinetics400 --config.method.loss_motion=0 --config.method.loss_cross=0   RGB only

Motion is read from a data set that `python -m motion_jax.prepare flow` makes, or, with
`data.flow=''`, computed from RGB frames in every step. The recipes without a data set
of the paper's (embedded, smoke, folder) are sized for two CPU cores. Sections, tables
and equations are those of the paper; 'open' marks what it leaves open, with the reason
for the choice.
"""

from ml_collections import ConfigDict

from motion_jax.config import parse_arg

WORDS = ("synthetic_actions", "smoke", "folder", "kinetics400", "kinetics400_mini")
NETWORKS = dict.fromkeys(WORDS[:3], "r3d_10")  # two CPU cores; the paper's is r3d_50


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="")
  network = arg.network or NETWORKS.get(arg.word, "r3d_50")
  config = ConfigDict()
  config.name = f"modist-{arg.word}"  # the run's folder is runs/<name>
  config.mode = "train"  # or 'evaluate': the last checkpoint of --workdir
  config.seed = 0
  config.method = method(network)
  config.data = data(network)
  config.model = model(network)
  config.optim = optim()
  config.train = train()
  config.eval = evaluation()

  match arg.word:
    case "synthetic_actions":
      small(config)
      embedded(config)
    case "smoke":
      small(config)
      smoke(config)
    case "folder":
      small(config)
      config.data.name = "folder"
      # Needs no preparation. Flow edges are better (78.1 to 71.6, table 3b): prepare
      # them, then --config.method.motion=edges --config.data.flow=variational
      # --config.data.flow_interval=5
      config.method.motion = "frame_difference"
      config.data.flow = ""
      config.data.flow_interval = 1
    case "kinetics400":
      config.data.name = "kinetics400"
      neighbours(config)
    case "kinetics400_mini":
      config.data.name = "kinetics400"
      config.data.per_class = 150  # 60,000 videos, section 4.1; open: 150 per class
      neighbours(config)
      config.train.duration = "100 epochs"  # section 4.1
      config.optim.warmup = "10 epochs"
  return config


def method(network):
  return ConfigDict(
    dict(
      name="modist",
      motion="edges",  # of the flow; or "flow", "frame_difference": table 3b
      loss_visual=1.0,  # weights of L_v, L_m and L_mv, Eq. 1 to 3; 0: without
      loss_motion=1.0,
      loss_cross=1.0,
      cross_negatives="query",  # modality of L_mv's negatives, Eq. 2; 'key': as others
      temperature=0.1,  # section 4.1
      momentum=0.999,  # section 4.1
      queue_size=65536,  # N, section 4.1
      embedding=128,  # section 4.1
      projection_layers=2,  # open: MoCo v2; 1: MoCo, 3: SlowFast
      projection_hidden=0,  # open: as wide as the features
      projection_norm=False,  # open: batch norm at its end (SimCLR, MoCo v3)
      key_regroup=True,  # open: keys are in other batch norm groups than queries (MoCo)
      frames=8,  # visual clip, section 3.3
      motion_frames=16,  # section 3.3
      size=128 if network == "r3d_18" else 224,  # section 3.3, table 2
      area=(0.2, 1.0),  # open: of the visual crop
      aspect=(3 / 4, 4 / 3),  # open
      jitter=0.8,  # probability of the next four, section 4.1
      brightness=0.4,
      contrast=0.4,
      saturation=0.4,
      hue=0.0,  # not in the paper's list
      grayscale=0.2,  # probability
      blur=0.5,  # probability
      blur_sigma=(0.1, 2.0),  # open: SimCLR; pixels
      flip=0.5,  # probability
      mean=(0.45, 0.45, 0.45),  # open: SlowFast
      std=(0.225, 0.225, 0.225),
      flow_warps=2,  # of the flow with data.flow=''
      flow_fixed_points=1,
      flow_iterations=8,
    )
  )


def data(network):
  side = 146 if network == "r3d_18" else 256  # open: as 224 of 256
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
      per_class=0,  # videos per class; 0: all
      fraction=1.0,  # share of each class's videos
      subset_seed=0,  # of these choices
      sampler="distill",  # four clips of a video
      interval=8,  # frames between those of a visual clip, section 3.3, at ...
      motion_interval=4,  # ... and of a motion clip, the same span
      fps=30.0,  # ... this rate
      synchronised=False,  # True: all four clips at one time, table 3c
      # Prepared set ('raft' has 20 iterations, open, and Sobel's kernel as OpenCV has
      # it, open); 'variational'; '': computed in every step.
      flow="raft",
      flow_interval=5,  # flow from frame t to t - 5, section 4.1; also of differences
      flow_short_side=256,  # open: pixels of the videos that a prepared set is made of
      motion_threshold=0.02,  # gamma, section 4.1: clips whose edges are weaker ...
      edge_scale="1",  # open: ... on the scale [0, 1]; '10' for [0, 10]
      short_side=side,
      canvas=(side, side * 16 // 9),  # larger ones are cropped
      threads=8,  # that decode
      workers=0,  # processes that decode; for hosts with many cores
      max_bad_fraction=0.05,  # more files that cannot be decoded stop the run
    )
  )


def model(network):
  return ConfigDict(
    dict(
      name=network,  # visual, table 1
      width=64,  # channels of the first stage
      motion_name="motion_r50",  # table 1
      motion_width=8,  # table 1: an eighth
      dtype="auto",  # bfloat16 on TPU and GPU, float32 on CPU
      lowering="auto",  # of 3D convolutions: 'native' or 'folded'
      precision="default",  # of float32 ones: 'high', 'highest'; see conv3d
      remat=False,  # recompute each block in the backward pass: less memory
      bn_groups=8,  # open: batch norm over 64 clips, as on each of 8 GPUs
    )
  )


def optim():  # open, all of it: SlowFast's contrastive recipe with half its rate
  return ConfigDict(
    dict(
      name="sgd",
      learning_rate=0.4,  # for 512 videos
      warmup="35 epochs",
      warmup_start=1e-3,
      weight_decay=1e-4,  # of weights only
      b1=0.9,  # of 'adam'
      b2=0.999,
      momentum=0.9,
      clip_norm=0.0,  # 0: no clipping
      drops=(),  # times at which the rate falls to a tenth, instead of the cosine
    )
  )


def train():
  return ConfigDict(
    dict(
      duration="600 epochs",  # section 4.1; 100, 200, 400: table 3d
      batch_size=512,  # open: videos; four clips of each
      accumulate_steps=1,  # parts of a batch, one after the other
      log_every=20,  # steps
      checkpoint_every="2%",
      keep=2,  # latest checkpoints
      best="",  # contrastive accuracy does not tell which encoder is best
      allow_config_change=False,
      skip_damaged=False,  # put damaged checkpoints aside, go on from the one before
    )
  )


def evaluation():
  return ConfigDict(
    dict(
      every="5%",  # of the training: the contrast of held-out videos
      batch_size=64,
      max_sources=1600,
      # What the encoder is worth on labelled videos, where the data have labels:
      probe=True,  # retrieval and k-NN beside random initialisation
      linear=True,  # and a linear classifier
      test_every="0 steps",  # in any case at the end
      clips=10,  # per video
      max_videos=0,  # of each split, a share of every class; 0: all
      crop_ratio=0.875,  # side of the square crop, of the short side
    )
  )


def small(config):
  """R3D-10 of width 8 on 8x32x32 clips: minutes on two CPU cores.

  Other networks: width 16, 8x64x64.
  """
  sizes = (8, 32, 40) if config.model.name == "r3d_10" else (16, 64, 80)
  config.model.width, config.method.size, config.data.short_side = sizes
  config.method.motion_frames = 8
  config.method.queue_size = 512
  config.method.momentum = 0.9  # a few hundred steps
  # Without it embeddings start in a narrow cone, whose drift tells new keys from old.
  config.method.projection_norm = True
  # In so few videos the paper's negatives are told from keys by their modality alone,
  # and statistics of the whole batch tell which keys are of this step.
  config.method.cross_negatives = "key"
  config.method.area = (0.4, 1.0)
  config.method.blur_sigma = (0.1, 0.5)
  config.data.canvas = (config.data.short_side, config.data.short_side * 16 // 9)
  config.data.interval = 4  # 1.1 of the 1.6 seconds of an embedded video
  config.data.motion_interval = 4
  config.data.flow = "variational"
  config.data.motion_threshold = 0.0
  config.model.motion_name = "r3d_10"  # 12 convolutions to compile, not 53
  config.model.bn_groups = 4
  config.optim.name = "adam"
  config.optim.learning_rate = 3e-3
  config.optim.warmup = "20 steps"
  config.train.batch_size = 64
  config.train.duration = "500 steps"
  config.train.checkpoint_every = "100 steps"
  config.eval.every = "100 steps"
  config.eval.batch_size = 64
  config.eval.max_sources = 64
  config.eval.clips = 2


def embedded(config):
  """What the embedded videos ask for, whose classes differ in motion alone.

  L_v, which appearance alone can lower, gets a small weight; colours stay as they are,
  crops are nearly the whole frame, and the clips of a video begin at one time: in 500
  steps RGB is learned from motion only so.
  """
  config.method.loss_visual = 0.1
  config.method.area = (0.8, 1.0)
  config.method.jitter = 0.0
  config.method.grayscale = 0.0
  config.method.blur = 0.0
  config.data.synchronised = True
  config.data.flow_short_side = 64  # half of theirs, to have it in minutes


def neighbours(config):
  """k-NN of some videos now and then, which shows short cuts that the contrast hides.

  configs/evaluate.py measures the rest, on UCF101 or HMDB51.
  """
  config.eval.linear = False
  config.eval.test_every = "10%"
  config.eval.clips = 2
  config.eval.max_videos = 8000  # 20 of every class, and as many of the held-out ones


def smoke(config):
  """Three steps of the smallest network; frame differences need no flow."""
  config.data.name = "synthetic_actions:tiny"
  config.data.flow = ""
  config.data.flow_interval = 1
  config.method.motion = "frame_difference"
  config.method.frames = 4
  config.method.motion_frames = 4
  config.method.queue_size = 64
  config.method.embedding = 16
  config.optim.warmup = "1 steps"
  config.train.batch_size = 8
  config.train.duration = "3 steps"
  config.train.log_every = 1
  config.train.checkpoint_every = "2 steps"
  config.eval.every = "3 steps"
  config.eval.batch_size = 8
  config.eval.max_sources = 8
  config.eval.clips = 1


def sweep():
  """The paper's ablations, as (config argument, overrides): table 3."""
  mini, full = "kinetics400_mini", "kinetics400"
  rgb_only = {"method.loss_motion": 0.0, "method.loss_cross": 0.0}
  difference = {"method.motion": "frame_difference", "data.flow": ""}
  short = {"train.duration": "100 epochs", "optim.warmup": "10 epochs"}  # as mini
  yield mini, {}  # the paper's setting
  yield mini, rgb_only  # table 3a
  yield full, {**rgb_only, **short}  # table 3a
  yield mini, {**difference, "data.flow_interval": 1}  # table 3b
  yield mini, {"method.motion": "flow"}  # table 3b
  yield mini, {"data.synchronised": True}  # table 3c
  yield mini, {"data.motion_threshold": 0.0}  # table 3c
  yield mini, {"method.loss_motion": 0.0}  # table 3c
  yield mini, {"method.cross_negatives": "key"}  # not in the paper
  yield full, short  # table 3d
  for epochs in (200, 400, 600):  # table 3d
    yield full, {"train.duration": f"{epochs} epochs"}
