"""Evaluates a run.

  python -m motion_jax.main --config=configs/evaluate.py --config.init_from=runs/mosi
  ... --config.data.name=hmdb51             its encoder on another data set
  ... --config.data.path=DIR                or on a folder with a folder per class

On the run's own data come the held-out metrics of its task; of its encoder
nearest-neighbour retrieval, k-NN and a linear classifier beside random initialisation,
where the data have labels. Settings are the run's own unless they are given. The result
is written to runs/evaluate/evaluation.json, or to --workdir.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from motion_jax.config import parse_arg

WORDS = ("run", "smoke")


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS)
  config = ConfigDict()
  config.name = "evaluate"  # the result's folder is runs/<name>
  config.mode = "evaluate_run"
  config.seed = 0
  config.init_from = ""  # folder of a run, or one of its checkpoints
  config.data = data()
  config.eval = evaluation()
  if arg.word == "smoke":
    config.eval.clips = 1
  return config


def data():  # None: as in the run
  return ConfigDict(
    dict(
      name=placeholder(str),
      path=placeholder(str),  # of a folder
      train_list=placeholder(str),  # text file of `path label` lines
      heldout_list=placeholder(str),
      heldout_fraction=placeholder(float),
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
      max_videos=placeholder(int),  # of each split, a share of every class; 0: all
      linear=placeholder(bool),  # a linear classifier on the features
    )
  )
