"""MoSI, MoDist and MAS at once, on one network: beyond the papers.

  python -m motion_jax.main --config=configs/joint.py          embedded videos
  ... --config=configs/joint.py:smoke                          3 steps, seconds
  ... --config=configs/joint.py:folder --config.data.path=DIR  your videos
  ... --config=configs/joint.py:kinetics400                    ucf101
  ... --config=configs/joint.py:ucf101,network=r3d_18          any 3D ResNet
  ... --config.method.mas_weight=0                             the other two

One batch of videos serves all three. The sections `mosi`, `modist` and `mas` are the
`method` sections of the recipes of the same word in configs/mosi.py, configs/modist.py
and configs/mas.py, which tell what their numbers mean; what all share is in `method`.
MoDist's motion is prepared or computed as for configs/modist.py. Numbers of this file
are ours.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

from motion_jax.config import parse_arg

WORDS = ("synthetic_actions", "smoke", "folder", "ucf101", "kinetics400")
NETWORKS = dict.fromkeys(WORDS[:3], "r3d_10")  # two CPU cores


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="")
  network = arg.network or NETWORKS.get(arg.word, "r2d3d_18")
  mosi, mas = recipe("mosi", arg.word), recipe("mas", arg.word)
  word = {"ucf101": "kinetics400"}.get(arg.word, arg.word)
  modist = recipe("modist", f"{word},network={network}")
  config = ConfigDict()
  config.name = f"joint-{arg.word}"  # the run's folder is runs/<name>
  config.mode = "train"  # or 'evaluate': the last checkpoint of --workdir
  config.seed = 0
  config.method = method(modist.method)
  config.mosi = section(mosi.method)
  config.modist = section(modist.method)
  config.mas = section(mas.method)
  config.data = modist.data  # four clips of a video, one of which serves MoSI and MAS
  config.model = modist.model
  config.optim = mosi.optim
  config.optim.learning_rate = 1e-3
  config.optim.clip_norm = 10.0  # as in configs/mas.py
  config.train = modist.train
  config.eval = modist.eval
  read_by_the_sampler(config)

  match arg.word:
    case "synthetic_actions" | "folder":
      small(config)
    case "smoke":
      config.method.mosi_every = 2
      config.train.batch_size = 16  # on up to 8 devices
      config.eval.batch_size = 16
    case "ucf101":
      large(config)
      config.data.name = "ucf101"
      config.data.canvas = (160, 213)  # all videos are 320x240
      config.modist.queue_size = 8192  # fewer than there are videos
      config.train.duration = "100 epochs"
      config.eval.test_every = "0 steps"  # at the end
      config.eval.linear = True
      config.eval.clips = 10
      config.eval.max_videos = 0
      config.optim.warmup = "10 epochs"
    case "kinetics400":
      large(config)
      config.train.duration = "20 epochs"
      config.optim.warmup = "2 epochs"
  return config


def recipe(name, word):
  path = pathlib.Path(__file__).with_name(f"{name}.py")
  return runpy.run_path(str(path))["get_config"](word)


def method(modist):
  return ConfigDict(
    dict(
      name="joint",
      # Of the losses, which by chance are 2.2 (MoSI), 4 ln(queue_size) (MoDist) and 16
      # (MAS) where the weights of their own terms are 1; 0: without.
      mosi_weight=1.0,
      modist_weight=0.1,
      mas_weight=0.1,
      mosi_every=4,  # 1 in 4 videos is a source of MoSI, which gives 9 clips
      mosi_side=2 * modist.size,  # of these sources; the paper: 320, crops of 112
      frames=modist.frames,  # of all clips
      size=modist.size,
      mean=modist.mean,
      std=modist.std,
    )
  )


def section(method):
  for key in ("name", "frames", "size", "mean", "std"):
    del method[key]
  return method


def read_by_the_sampler(config):
  """What it reads of `method`; to be set in `modist`, without motion if that is off."""
  modist, weight = config.modist, config.method.get_ref("modist_weight")
  config.method.motion = modist.get_ref("motion")
  config.method.motion_frames = modist.get_ref("motion_frames")
  config.method.loss_motion = modist.get_ref("loss_motion") * weight
  config.method.loss_cross = modist.get_ref("loss_cross") * weight


def small(config):
  """MoDist's small network and clips; MoSI sees twice as many as in its own recipe."""
  config.optim.learning_rate = 3e-3  # as MoDist's and MAS's; with 1e-3 ...
  config.train.duration = "216 steps"  # ... MAS is still at chance halfway
  config.train.checkpoint_every = "108 steps"
  config.eval.every = "108 steps"
  config.eval.max_videos = 320


def large(config):
  """Clips of 16x112x112."""
  config.method.frames = 16
  config.method.size = 112
  config.method.mosi_every = 2
  config.method.mosi_side = 320  # frames of 160 pixels, enlarged
  config.data.short_side = 160
  config.data.canvas = (160, 284)  # up to 16:9
  config.data.interval = 2
  config.data.motion_interval = 2
  config.train.batch_size = 64
  config.optim.warmup_start = 1e-4


def sweep():
  """All, and without each of them, as (config argument, overrides)."""
  yield "ucf101", {}
  for name in ("mosi", "modist", "mas"):
    yield "ucf101", {f"method.{name}_weight": 0.0}
