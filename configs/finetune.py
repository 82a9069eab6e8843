"""Supervised training of a pretrained encoder: fine-tuning, linear probe, scratch.

  python -m motion_jax.main --config=configs/finetune.py --config.init_from=runs/mosi
  ... --config=configs/finetune.py:synthetic_actions,linear ...    backbone frozen
  ... --config=configs/finetune.py:synthetic_actions,scratch  random initialisation
  ... --config=configs/finetune.py:folder --config.data.path=DIR  a folder per class
  ... --config=configs/finetune.py:synthetic_actions,network=r3d_10  all but MoSI
  ... --config=configs/finetune.py:hmdb51 --config.init_from=runs/mosi-hmdb51     ucf101
  ... --config=configs/finetune.py:ucf101,network=r2plus1d_10 MoSI's other network
  ... --config=configs/finetune.py:ucf101,recipe=modist,linear    MoDist's protocol
  ... --config=configs/finetune.py:ucf101,recipe=mas              MAS's, with C3D
  ... --config=configs/finetune.py:something_something_v2[,linear]  MoDist's table 4
  ... --config=configs/finetune.py:smoke                      3 steps, seconds

`init_from` is the folder of a run, one of its checkpoints (runs/mosi/checkpoints/120),
or a PyTorch file. `method.frozen_stages` = 1..5 freezes the first stages (figure 6 of
MoSI), `data.per_class` and `data.fraction` take fewer labels (table 3 of MoSI, table 6
of MoDist). Sections and tables are MoSI's (Huang et al., CVPR 2021); 'code' is the
first public release of its authors' code.
"""

from ml_collections import ConfigDict

from motion_jax.config import choose, parse_arg

NETWORKS = {"mosi": "r2d3d_18", "modist": "r3d_50", "mas": "c3d"}  # by recipe
SSV2 = "something_something_v2"
WORDS = ("synthetic_actions", "smoke", "folder", "ucf101", "hmdb51", SSV2)


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, recipe="", network="", linear=False, scratch=False)
  recipe = arg.recipe or {SSV2: "modist"}.get(arg.word, "mosi")
  network = arg.network or NETWORKS[choose("recipe", recipe, [*NETWORKS])]
  config = ConfigDict()
  config.name = f"finetune-{arg.word}-{network}"  # the run's folder is runs/<name>
  config.mode = "train"  # or 'evaluate': the last checkpoint of --workdir
  config.seed = 0
  config.init_from = ""  # folder of a run, a checkpoint, a PyTorch file, or 'scratch'
  config.method = method()
  config.data = data()
  config.model = model(network)
  config.optim = optim(arg.word, network)
  config.train = train(network)
  config.eval = evaluation()
  match recipe:
    case "modist":
      modist(config)
    case "mas":
      mas(config, arg.word)

  match arg.word:
    case "synthetic_actions":
      small(config, network)
    case "smoke":
      small(config, network)
      smoke(config)
    case "folder":
      small(config, network)
      config.data.name = "folder"
    case "ucf101":
      config.data.name = "ucf101"  # all videos are 320x240
      config.data.canvas = canvas(config.data.short_side, 4 / 3)
    case "hmdb51":
      config.data.name = "hmdb51"
      # Wider videos are cropped.
      config.data.canvas = canvas(config.data.short_side, 16 / 9)
    case "something_something_v2":
      ssv2(config, recipe)
  if arg.linear:
    linear(config, recipe)
  if arg.scratch:
    scratch(config)
  return config


def method():
  return ConfigDict(
    dict(
      name="classify",
      classes=0,  # 0: as many as the data set has
      class_names=(),  # filled in from the data set
      frozen_stages=0,  # first stages that stay as they are; 5: linear probe
      frames=16,  # section 4.1
      size=112,  # section 4.1
      crop="resized",  # random area and aspect (code); 'plain': `size` x `size` pixels
      area=(0.3243, 0.5765),  # code: 168^2 to 224^2 of 256 x 340 pixels
      aspect=(6 / 7, 7 / 6),  # code
      flip=0.5,  # probability, section 4.1
      brightness=0.5,  # colour jitter: code, one draw for all frames of a clip
      contrast=0.5,
      saturation=0.5,
      hue=0.25,
      grayscale=0.3,  # probability
      mean=(0.45, 0.45, 0.45),  # code
      std=(0.225, 0.225, 0.225),  # code
      dropout=0.5,  # section 4.1
      head_decay=0.0,  # weight decay of the classifier alone, beside optim.weight_decay
    )
  )


def data():
  return ConfigDict(
    dict(
      name="synthetic_actions",
      path="",  # of a folder with a sub-folder of videos per class
      train_list="",  # text file of `path label` lines; '': by heldout_fraction
      heldout_list="",
      heldout_fraction=0.1,  # as in pretraining, or tests see videos trained on
      heldout_by="class",  # that share of each one; 'file': of all files
      frame_folders=True,  # a folder of numbered images is a video; False: many images
      data_dir="",  # of prepared data sets; '': $TFDS_DATA_DIR or ~/tensorflow_datasets
      per_class=0,  # videos per class; 0: all. Table 3: 3, 5, 7, 9, 11, 13
      fraction=1.0,  # share of each class's videos. MoDist table 6: 0.01 to 0.8
      subset_seed=0,  # of these choices, which are nested
      sampler="clip",
      interval=4,  # frames between those of a clip (code), at ...
      fps=30.0,  # ... this rate (code); 0: the video's own
      short_side=171,  # the smallest crop then is 112 pixels, and none is enlarged
      canvas=(171, 304),  # room for the resized frames; larger ones are cropped
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
      bn_groups=8,  # batch norm over 128 (48) clips, as on each of 8 GPUs (code)
    )
  )


def optim(word, network):
  # Code: 2e-3 for a batch of 1024 on HMDB51, twice that on UCF101; linear in the batch.
  rate = {"r2plus1d_10": 7.5e-4}.get(network, 2e-3)
  return ConfigDict(
    dict(
      name="adam",  # with coupled L2, section 4.1 and code
      learning_rate=rate * {"ucf101": 2}.get(word, 1),
      warmup="10 epochs",  # section 4.1
      warmup_start=rate * {"ucf101": 2}.get(word, 1) / 10,  # code
      drops=(),  # times when the rate falls to a tenth; (): half cosine, section 4.1
      weight_decay=1e-3,  # code
      b1=0.9,
      b2=0.999,
      momentum=0.9,  # of 'sgd'
      clip_norm=0.0,  # 0: no clipping
    )
  )


def train(network):
  return ConfigDict(
    dict(
      duration="300 epochs",  # section 4.1
      batch_size={"r2plus1d_10": 384}.get(network, 1024),  # code: 8 x 48, 8 x 128
      accumulate_steps=1,  # parts of a batch, one after the other
      log_every=20,  # steps
      checkpoint_every="5%",
      keep=2,  # latest checkpoints
      best="",  # the last one is what the papers report
      allow_config_change=False,
      skip_damaged=False,  # put damaged checkpoints aside, go on from the one before
    )
  )


def evaluation():
  return ConfigDict(
    dict(
      every="5%",  # of the training: accuracy of the middle clip of held-out videos
      batch_size=64,
      max_sources=0,  # of them; 0: all
      test_every="0 steps",  # the test over videos; in any case at the end
      clips=10,  # at the end: clips per video, section 4.1; 0: all, without overlap
      crops=1,  # or 3, side by side
      crop_ratio=0.875,  # side of the square crop, of the short side (code)
      size=0,  # pixels to which it is resized; 0: method.size
      # Of crops larger than method.size: softmax at each place, then the mean (SF), or
      # False: the softmax of the mean feature.
      place_scores=False,
    )
  )


def modist(config):
  """MoDist (Xiao et al., 2021), section 4.1; 'SF' is SlowFast's UCF101 recipe.

  Table 3 of the paper uses 8 frames: --config.method.frames=8.
  """
  config.method.frames = 32
  config.data.interval = 8
  config.method.size = 224
  config.data.short_side = 256
  config.data.canvas = canvas(256, 16 / 9)
  config.method.area = (0.37, 0.58)  # SF: squares of 224 in frames of 256 to 320 ...
  config.method.aspect = (1.0, 1.0)  # ... pixels, here by area of a 4:3 frame
  config.method.brightness = 0.4  # SF
  config.method.contrast = 0.4
  config.method.saturation = 0.4
  config.method.hue = 0.1
  config.method.grayscale = 0.2
  config.method.dropout = 0.8
  config.model.bn_groups = 1
  config.optim.name = "sgd"
  config.optim.learning_rate = 0.01  # SF: for a batch of 64
  config.optim.weight_decay = 0.0
  config.optim.warmup = "0 steps"
  config.train.batch_size = 64
  config.train.duration = "200 epochs"
  config.eval.batch_size = 8  # clips of 32 frames, times three crops
  config.eval.crops = 3
  config.eval.crop_ratio = 1.0
  config.eval.size = 256
  config.eval.place_scores = True  # SF


def ssv2(config, recipe):
  """Something-Something V2: a frame of each part of a video, one view, no flips.

  MoDist's schedule (Xiao et al., 2021, section 4.4) is that of the full and the linear
  protocol; 'SF' is SlowFast's recipe for this data set.
  """
  config.data.name = SSV2
  config.data.sampler = "segments"  # SF
  config.data.canvas = canvas(config.data.short_side, 16 / 9)
  config.method.flip = 0.0  # SF; many actions are the mirror of another one
  config.eval.clips = 1  # SF
  config.eval.crops = 1  # SF
  if recipe == "modist":
    config.method.frames = 16  # section 4.4: 16x8
    config.method.area = (0.2756, 0.4307)  # SF: squares of 224 in frames of 256 to ...
    config.method.brightness = 0.0  # ... 320 pixels, here by area of a 16:9 frame
    config.method.contrast = 0.0  # SF: no colour jitter
    config.method.saturation = 0.0
    config.method.hue = 0.0
    config.method.grayscale = 0.0
    config.method.dropout = 0.5  # SF
    config.optim.learning_rate = 0.03  # section 4.4, as the next five
    config.optim.warmup = "0.19 epochs"
    config.optim.warmup_start = 1e-4
    config.optim.drops = ("14 epochs", "18 epochs")
    config.train.duration = "22 epochs"
    config.train.batch_size = 16
    config.optim.weight_decay = 1e-6  # SF


def mas(config, word):
  """MAS (Wang et al., CVPR 2019), section 4.1; 'code' is the authors'."""
  config.method.frames = 16
  config.data.interval = 1
  config.data.fps = 0.0
  config.method.size = 112
  config.method.crop = "plain"
  config.data.short_side = 128  # code: frames of 171x128
  config.data.canvas = canvas(128, 16 / 9)
  config.method.brightness = 0.0  # no colour jitter
  config.method.contrast = 0.0
  config.method.saturation = 0.0
  config.method.hue = 0.0
  config.method.grayscale = 0.0
  config.model.bn_groups = 1
  config.optim.name = "sgd"
  config.optim.learning_rate = 1e-3
  config.optim.weight_decay = 0.0
  config.method.head_decay = 0.005  # code
  config.optim.warmup = "0 steps"
  config.optim.drops = ("25%", "50%", "75%")  # code, section 4.1
  config.train.batch_size = 30
  # 20 passes over all 16-frame clips; a video gives one clip per epoch here, those of
  # UCF101 have 12.6 (code: 80,000 steps), those of HMDB51 about 95 frames.
  config.train.duration = "118 epochs" if word == "hmdb51" else "252 epochs"
  config.eval.clips = 0  # all clips without overlap, as far as the paper tells


def linear(config, recipe):
  """The linear probe: everything but the classifier is frozen."""
  config.name += "-linear"
  config.method.frozen_stages = 5
  config.method.dropout = 0.0
  config.optim.weight_decay = 0.0
  match recipe:
    case "modist" if config.data.name == SSV2:
      pass  # the same schedule
    case "modist":
      config.optim.learning_rate = 0.5  # SF: for a batch of 64
      config.optim.warmup = "8 epochs"
      config.optim.warmup_start = 0.05  # open: a tenth
      config.train.duration = "60 epochs"
    case _:  # ours; neither MoSI nor MAS has a linear probe
      config.optim.learning_rate *= 2
      config.optim.warmup_start *= 2
      config.method.head_decay = 0.0


def canvas(short_side, aspect):
  """Room for frames up to an aspect ratio, wide or high; of longer ones a part."""
  return short_side, int(short_side * aspect)


def scratch(config):
  """Random initialisation."""
  config.name += "-scratch"
  config.init_from = "scratch"
  if config.data.name == "ucf101" and config.optim.name == "adam":
    config.optim.learning_rate /= 2  # code: 2e-3 for both data sets
    config.optim.warmup_start /= 2


def small(config, network):
  """Width 16 on 8x64x64 clips: minutes on two CPU cores.

  R3D-10, the small network of configs/modist.py: width 8, 8x32x32.
  """
  config.model.width = 16
  config.model.bn_groups = 1
  config.method.frames = 8
  config.method.size = 64
  config.eval.size = 0
  config.data.short_side = 80
  config.data.canvas = (80, 143)
  config.data.interval = 2
  if network == "r3d_10":
    config.model.width = 8
    config.method.size = 32
    config.data.short_side = 40
    config.data.canvas = (40, 72)
    config.data.interval = 4
  config.optim.name = "adam"
  config.optim.drops = ()
  config.optim.learning_rate = 2e-3
  config.optim.warmup = "20 steps"
  config.optim.warmup_start = 2e-4
  config.optim.weight_decay = 1e-4
  config.train.batch_size = 32
  config.train.duration = "8 epochs"
  config.train.checkpoint_every = "25%"
  config.eval.every = "50%"
  config.eval.batch_size = 32


def smoke(config):
  """Three steps of the smallest network, from scratch."""
  config.init_from = "scratch"
  config.data.name = "synthetic_actions:tiny"
  config.model.width = 8
  config.method.frames = 4
  config.method.size = 32
  config.data.short_side = 40
  config.data.canvas = (40, 72)
  config.optim.warmup = "1 steps"
  config.train.batch_size = 8
  config.train.duration = "3 steps"
  config.train.log_every = 1
  config.train.checkpoint_every = "2 steps"
  config.eval.every = "3 steps"
  config.eval.batch_size = 8
  config.eval.clips = 2


def sweep():
  """The papers' ablations of fine-tuning, as (config argument, overrides).

  Each needs `init_from` besides.
  """
  # MoSI, table 3; open: the batch stays at 1024, of which 153 videos (3 per class) fill
  # each one several times.
  for count in (3, 5, 7, 9, 11, 13):
    yield "hmdb51", {"data.per_class": count}
  for stages in range(6):  # MoSI, figure 6
    yield "hmdb51", {"method.frozen_stages": stages}
  for percent in (1, 5, 20, 40, 60, 80, 100):  # MoDist, table 6
    yield "ucf101,recipe=modist", {"data.fraction": percent / 100}
