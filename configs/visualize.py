"""Draws what the encoder of a run has learned, on videos.

  python -m motion_jax.main --config=configs/visualize.py --config.init_from=RUN
  ... --config.data.path=DIR                on any folder of videos
  ... --config.data.name=hmdb51             or on another data set

Needs scikit-learn: pip install 'motion_jax[visualize]'. Into runs/visualize/pictures,
or that folder of --workdir, go, in place of those of an earlier run,

  gradcam.png, .gif    where the network looks, beside random initialisation and the
                       flow's magnitude
  attention.png, .gif  the same of a network without classes (MAS, MoDist, joint, a
                       converted encoder)
  motion_share.json    how much of these maps lies in moving pixels, and how often
                       their maximum does
  clusters.png, .gif   k-means clusters of the features, with examples
  tsne.png             a map of the features
  retrieval.png        videos and their nearest ones
  confusion.png        of a classifier, from its predictions.tsv

Of a folder without lists all videos are shown; else the held-out ones, and neighbours
come from the training part.

Figures 4 (gradcam) and 5 (tsne, clusters; unmasked) of MoSI, Huang et al., CVPR 2021,
and 6 (attention) of MAS, Wang et al., CVPR 2019, take two commands each, options of
python -m motion_jax.main:

  4  --config=configs/mosi.py:hmdb51
     --config=configs/visualize.py --config.init_from=runs/mosi-hmdb51
       --config.pictures.explains=class
  5  --config=configs/mosi.py:hmdb51 --config.method.mask_ratio='(1.0,1.0)'
       --workdir=runs/mosi-hmdb51-unmasked
     --config=configs/visualize.py --config.init_from=runs/mosi-hmdb51-unmasked
  6  --config=configs/mas.py:ucf101
     --config=configs/visualize.py --config.init_from=runs/mas-ucf101
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from motion_jax.config import parse_arg

WORDS = ("run", "smoke")


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS)
  config = ConfigDict()
  config.name = "visualize"  # the result's folder is runs/<name>
  config.mode = "visualize"
  config.seed = 0  # of the choice of videos, of k-means and t-SNE
  config.init_from = ""  # folder of a run, or one of its checkpoints
  config.data = data()
  config.eval = evaluation()
  config.pictures = pictures()
  if arg.word == "smoke":
    config.eval.clips = 1
    config.pictures.max_videos = 8
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
      clips=placeholder(int),  # per video that its features are the mean of; 0: all
      crop_ratio=placeholder(float),  # side of the middle square, of the short side
    )
  )


def pictures():
  return ConfigDict(
    dict(
      max_videos=500,  # shown, and searched in; 0: all
      stage="conv5",  # that Grad-CAM looks at; conv5 in the papers
      # What Grad-CAM explains: the predicted 'class', as in the papers, or of MoSI
      # 'motion', the odds that anything moves: what is taken for still is seen by what
      # stands still. With labels='separate' it is the sum of both heads' log odds, for
      # motion along x and along y. '': motion where a class stands still.
      explains="",
      smallest=112,  # side of what is shown and explained, if the run's is not larger
      examples=4,  # clips in gradcam.png or attention.png
      moving=0.2,  # share of a frame's pixels that count as moving: the fastest
      # The cameras stand still: maps are also measured by what is unlike the background
      # (the median of the video), and gradcam.png shows that.
      static_camera=False,
      clusters=5,  # MoSI, figure 5
      cluster_examples=6,
      queries=6,  # rows of retrieval.png
    )
  )
