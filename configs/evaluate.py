"""Evaluates a run, or an encoder in a PyTorch file.

  python -m motion_jax.main --config=configs/evaluate.py --config.init_from=runs/mosi
  ... --config.data.name=hmdb51             on another data set
  ... --config.data.name=folder --config.data.path=DIR

Of a run come the held-out metrics of its own task; of its encoder nearest-neighbour
retrieval, k-NN and a linear classifier beside random initialisation, where the data
have labels. The result is written to runs/evaluate/evaluation.json, or to --workdir.
"""

from ml_collections import ConfigDict

from motion_jax.config import parse_arg

WORDS = ("run", "smoke")


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="r2d3d_18")
  config = ConfigDict()
  config.name = "evaluate"  # the result's folder is runs/<name>
  config.mode = "evaluate_run"
  config.seed = 0  # of the random initialisation
  config.init_from = ""  # folder of a run, one of its checkpoints, a PyTorch file
  config.data = data()
  config.eval = evaluation()
  # Of a PyTorch file alone; a run has its own.
  config.method = ConfigDict(
    dict(
      name="mosi",
      frames=16,
      size=112,
      mean=(0.45, 0.45, 0.45),
      std=(0.225, 0.225, 0.225),
    )
  )
  config.model = ConfigDict(dict(name=arg.network, width=64))
  if arg.word == "smoke":
    config.eval.clips = 1
    config.eval.batch_size = 8
    config.data.name = "synthetic_actions:tiny"
  return config


def data():
  """What is empty or 0 is as in the run."""
  return ConfigDict(
    dict(
      name="",
      path="",  # of a folder
      train_list="",  # text file of `path label` lines
      heldout_list="",
      heldout_fraction=0.0,
      frame_folders=True,
      data_dir="",
      sampler="",
      interval=0,  # frames between those of a clip
      fps=0.0,
      threads=8,
      max_bad_fraction=0.05,
    )
  )


def evaluation():
  return ConfigDict(
    dict(
      batch_size=32,  # clips
      probe=True,  # retrieval and k-NN beside random initialisation
      linear=True,  # and a linear classifier
      clips=10,  # per video, evenly spaced
      max_videos=0,  # of each split; 0: all
      crop_ratio=0.875,  # side of the square crop, of the short side
    )
  )
