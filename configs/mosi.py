"""MoSI pretraining (Huang et al., CVPR 2021).

  python -m motion_jax.main --config=configs/mosi.py          embedded videos
  ... --config=configs/mosi.py:smoke                          3 steps, seconds
  ... --config=configs/mosi.py:folder --config.data.path=DIR  your videos or images
  ... --config=configs/mosi.py:hmdb51                         ucf101, kinetics400
  ... --config=configs/mosi.py:imagenet,images_per_class=30   5, 10, 20
  ... --config=configs/mosi.py:ucf101,network=r2plus1d_10     the paper's other network

The recipes without a data set of the paper's (embedded, smoke, folder) are sized for
two CPU cores and use a difficulty curriculum, which is ours; the others hold the
paper's numbers. Sections and tables are those of the paper; 'code' is the first public
release of the authors' code.
"""

from ml_collections import ConfigDict

from motion_jax.config import parse_arg

WORDS = (
  "synthetic_actions",
  "smoke",
  "folder",
  "ucf101",
  "hmdb51",
  "kinetics400",
  "imagenet",
)


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="r2d3d_18", images_per_class=30)
  config = ConfigDict()
  config.name = f"mosi-{arg.word}"  # the run's folder is runs/<name>
  config.mode = "train"  # or 'evaluate': the last checkpoint of --workdir
  config.seed = 0
  config.method = method()
  config.data = data()
  config.model = model(arg.network)
  config.optim = optim()
  config.train = train(arg.network)
  config.eval = evaluation()

  match arg.word:
    case "synthetic_actions":
      small(config)
    case "smoke":
      small(config)
      smoke(config)
    case "folder":
      small(config)
      config.data.name = "folder"
    case "ucf101":
      config.data.name = "ucf101"
      config.data.canvas = (320, 426)  # all videos are 320x240
    case "hmdb51":
      config.data.name = "hmdb51"
      config.data.canvas = (320, 569)  # 16:9; wider videos are cropped
    case "kinetics400":
      config.data.name = "kinetics400"
      config.train.duration = "20 epochs"  # section 4.1
      config.optim.warmup = "2 epochs"  # section 4.1
      config.eval.every = "1 epochs"
      config.eval.probe = False  # configs/evaluate.py does it on UCF101 or HMDB51
    case "imagenet":
      config.eval.probe = False  # images do not move
      config.data.name = f"imagenet_subset:{arg.images_per_class}"
      config.method.mean = (0.485, 0.456, 0.406)  # code
      config.method.std = (0.229, 0.224, 0.225)  # code
  return config


def method():
  return ConfigDict(
    dict(
      name="mosi",
      speeds=2,  # K: speeds -K..K per axis, '5 classes' in table 2
      axes="xy",  # 'x', 'y': table 1
      static=True,  # with the label of a crop that stands still
      decoupled=True,  # False: all pairs of horizontal and vertical speeds
      labels="joint",  # 'separate': one head per axis
      frames=16,  # table 2
      size=112,  # section 4.1
      mask_ratio=(0.3, 0.5),  # of `size`, section 3.3; (1.0, 1.0): unmasked
      distance_jitter=(1.0, 1.0),  # code
      flip=True,  # half of the source images, before cropping: labels stay true
      compat_flip=False,  # code: half of the finished clips, whose label turns wrong
      brightness=0.5,  # colour jitter: code, drawn anew for every frame
      contrast=0.5,
      saturation=0.5,
      hue=0.25,
      grayscale=0.3,  # probability, once per clip
      jitter_per_frame=True,
      mean=(0.45, 0.45, 0.45),  # code
      std=(0.225, 0.225, 0.225),  # code
      dropout=0.5,  # section 4.1
      curriculum_steps=0,  # ours: mask and jitter grow to full strength in these steps
    )
  )


def data():
  return ConfigDict(
    dict(
      name="synthetic_actions",
      path="",  # of a folder of videos, images or frame folders
      train_list="",  # text file of `path [label]` lines; '': by heldout_fraction
      heldout_list="",
      heldout_fraction=0.1,
      heldout_by="class",  # that share of each sub-folder; 'file': of all files
      frame_folders=True,  # a folder of numbered images is a video; False: many images
      data_dir="",  # of prepared data sets; '': $TFDS_DATA_DIR or ~/tensorflow_datasets
      sampler="frame",  # one random frame of a video, section 4.1
      interval=4,  # of the clips that test the encoder: section 4.1, at ...
      fps=30.0,  # ... this rate (code)
      short_side=320,  # section 4.1
      canvas=(569, 569),  # room for the resized source; larger ones are cropped
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
      bn_groups=16,  # batch norm over 10 (5) sources, as on each of 16 GPUs (code)
    )
  )


def optim():
  return ConfigDict(
    dict(
      name="adam",  # with coupled L2, section 4.1 and code
      learning_rate=1e-3,  # section 4.1
      warmup="10 epochs",  # section 4.1
      warmup_start=1e-4,  # code
      drops=(),  # times when the rate falls to a tenth; (): half cosine, section 4.1
      weight_decay=1e-4,  # code
      b1=0.9,
      b2=0.999,
      momentum=0.9,  # of 'sgd'
      clip_norm=0.0,  # 0: no clipping
    )
  )


def train(network):
  return ConfigDict(
    dict(
      duration="100 epochs",  # section 4.1
      # Sources; a source gives 9 clips. 16 GPUs x 10, and x 5 in the code's R(2+1)D.
      batch_size={"r2plus1d_10": 80}.get(network, 160),
      accumulate_steps=1,  # parts of a batch, one after the other
      log_every=20,  # steps
      checkpoint_every="5%",
      keep=2,  # latest checkpoints, beside the best
      best="eval/pretext_accuracy",
      allow_config_change=False,
      skip_damaged=False,  # put damaged checkpoints aside, go on from the one before
    )
  )


def evaluation():
  return ConfigDict(
    dict(
      every="5%",  # of the training: the pretext task on held-out sources
      batch_size=16,
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
  """R-2D3D-18 of width 16 on 8x64x64 clips: minutes on two CPU cores."""
  config.model.width = 16
  config.model.bn_groups = 1
  config.method.frames = 8
  config.method.size = 64
  config.method.dropout = 0.0  # of the paper's 0.5, a network this narrow learns late
  config.method.curriculum_steps = 130
  config.data.short_side = 128
  config.data.canvas = (192, 192)
  config.data.interval = 2
  config.optim.learning_rate = 2e-3
  config.optim.warmup = "20 steps"
  config.train.batch_size = 8
  config.train.duration = "216 steps"
  config.train.checkpoint_every = "108 steps"
  config.eval.every = "108 steps"
  config.eval.batch_size = 8
  config.eval.max_sources = 64
  config.eval.clips = 2
  config.eval.max_videos = 320


def smoke(config):
  """Three steps of the smallest network."""
  config.data.name = "synthetic_actions:tiny"
  config.model.width = 8
  config.method.frames = 4
  config.method.size = 32
  config.data.short_side = 64
  config.data.canvas = (96, 96)
  config.optim.warmup = "1 steps"
  config.train.batch_size = 8
  config.train.duration = "3 steps"
  config.train.log_every = 1
  config.train.checkpoint_every = "2 steps"
  config.eval.every = "3 steps"
  config.eval.max_sources = 8
  config.eval.clips = 1


def sweep():
  """The paper's ablations of pretraining, as (config argument, overrides)."""
  for word in ("ucf101", "hmdb51"):
    yield word, {}  # the paper's setting: tables 1, 2 and 4
    for axes in ("x", "y"):  # table 1
      yield word, {"method.axes": axes}
    for speeds in (1, 3, 4):  # table 2a, 2b: 3, 7, 9 classes instead of 5
      yield word, {"method.speeds": speeds}
    for frames in (8, 12, 24, 32):  # table 2c, 2d
      # Same pixels per frame: the source is 112 + 208 (frames - 1) / 15 pixels wide.
      side = 112 + round(208 * (frames - 1) / 15)
      canvas = (side, side * 16 // 9)
      yield (
        word,
        {
          "method.frames": frames,
          "data.short_side": side,
          "data.canvas": canvas,
        },
      )
    for percent in range(10, 101, 10):  # figure 7: fixed ratios; 1.0 is unmasked
      yield word, {"method.mask_ratio": (percent / 100, percent / 100)}
  for images in (5, 10, 20, 30):  # table 4, subsets of ImageNet
    yield f"imagenet,images_per_class={images}", {}
