"""Evaluates a run.

  python -m motion_jax.main --config=configs/evaluate.py --config.init_from=RUN
  ... --config.data.name=hmdb51             its encoder on another data set
  ... --config.data.path=DIR                or on a folder with a folder per class
  ... --config.eval.groups='/([a-z]+)_'     leaving out one person after the other
  ... --config=configs/evaluate.py:aslan    same action or not: MAS's table 5
  ... --config=configs/evaluate.py:yupenn   dynamic scenes: MAS's table 6
  ... --config=configs/evaluate.py:ava --config.results=FILE.csv    frame mAP of a file

On the run's own data come the held-out metrics of its task; of its encoder
nearest-neighbour retrieval, k-NN and a linear classifier beside random initialisation,
where the data have labels. Settings are the run's own unless they are given. The result
is written to runs/evaluate/evaluation.json, or to --workdir. ASLAN and YUPENN need
pip install 'motion_jax[evaluation]', and are written to runs/evaluate-aslan, ...
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from motion_jax.config import parse_arg

WORDS = ("run", "smoke", "aslan", "yupenn", "ava")


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS)
  config = ConfigDict()
  config.name = "evaluate"  # the result's folder is runs/<name>
  config.mode = "evaluate"
  # Of the random initialisation, and of draws for held-out metrics; None: the run's.
  config.seed = placeholder(int)
  config.init_from = ""  # folder of a run, or one of its checkpoints
  config.data = data()
  config.eval = evaluation()
  match arg.word:
    case "smoke":
      config.eval.clips = 1
    case "aslan" | "yupenn":
      protocol(config, arg.word)
    case "ava":
      ava(config)
  return config


def data():  # None: as in the run
  return ConfigDict(
    dict(
      name=placeholder(str),
      path=placeholder(str),  # of a folder
      train_list=placeholder(str),  # text file of `path label` lines
      heldout_list=placeholder(str),
      heldout_fraction=placeholder(float),
      heldout_by=placeholder(str),
      frame_folders=placeholder(bool),
      data_dir=placeholder(str),
      interval=placeholder(int),  # frames between those of a clip, at ...
      fps=placeholder(float),  # ... this rate; 0: the video's own
      threads=placeholder(int),
    )
  )


def evaluation():  # None: as in the run
  return ConfigDict(
    dict(
      batch_size=placeholder(int),  # clips
      clips=placeholder(int),  # per video, evenly spaced; 0: all
      # Of each split, a share of every class; 0: all, as with `groups` unless given.
      max_videos=placeholder(int),
      # 'conv1' to 'conv5': mean and deviation of that stage; '': the encoder's features
      stage=placeholder(str),
      linear=placeholder(bool),  # a linear classifier on the features
      # Regular expression that finds in a path what its video shares with others, as a
      # person: all of a group are left out of what they are compared with. '': none.
      groups=placeholder(str),
      place_scores=placeholder(bool),  # of a classifier; see configs/finetune.py
    )
  )


def protocol(config, name):
  """MAS (Wang et al., CVPR 2019), sections 4.5 and 4.6."""
  config.name += f"-{name}"
  config.protocol = name
  config.cost = 1.0  # C of the linear SVMs, which the paper does not tell
  # Clips are all that follow one another and share half their frames (section 4.5).
  config.data = ConfigDict(
    dict(
      name=name,  # with a variant if there are several, as aslan:frames
      data_dir=placeholder(str),
      interval=placeholder(int),
      fps=placeholder(float),
      threads=placeholder(int),
    )
  )
  config.eval = ConfigDict(dict(batch_size=placeholder(int)))


def ava(config):
  """The official evaluation of AVA: 60 actions, IoU 0.5, without excluded seconds."""
  config.name += "-ava"
  config.results = ""  # csv: video,second,x1,y1,x2,y2,action,score; sides in [0, 1]
  config.data = ConfigDict(dict(name="ava", data_dir=placeholder(str)))
  config.eval = ConfigDict()
