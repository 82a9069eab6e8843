"""What config files are made of: settings that all trainings share, and tables of them.

`--print_config` of `motion_jax.main` prints what a file and its argument give.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

# Numbers that a paper gives are in the recipe's own file, even where they are the same.
COMMON = dict(
  name="",  # the run's folder is runs/<name>
  mode="train",  # or 'evaluate': the last checkpoint of --workdir
  seed=0,
  data=dict(
    name="synthetic_actions",  # embedded
    path="",  # of a folder: videos, frame folders; MoSI: images; labels: sub-folders
    train_list="",  # text file of `path [label]` lines; '': by heldout_fraction
    heldout_list="",
    heldout_fraction=0.1,  # alike in all recipes, or tests see videos trained on
    heldout_by="class",  # that share of each sub-folder; 'file': of all files
    frame_folders=True,  # a folder of numbered images is a video; False: many images
    data_dir="",  # of prepared data sets; '': $TFDS_DATA_DIR or ~/tensorflow_datasets
    threads=-1,  # that decode, in each process; -1: by the host's cores
    workers=-1,  # processes that decode; 0: none, -1: by the host's cores
    max_bad_fraction=0.05,  # more files that cannot be decoded stop the run
  ),
  model=dict(
    name="",  # network=... of the argument
    width=64,  # channels of the first stage
    dtype="auto",  # bfloat16 on TPU and GPU, float32 on CPU
    lowering="auto",  # of 3D convolutions: 'native' or 'folded'
    precision="default",  # of float32 ones: 'high', 'highest'; see conv3d
    remat=False,  # recompute each block in the backward pass: less memory
    bn_groups=1,  # parts of a batch with batch norm of their own
  ),
  optim=dict(
    warmup="0 steps",
    warmup_start=0.0,
    drops=(),  # times when the rate falls to a tenth; (): half cosine
    weight_decay=0.0,  # of weights only
    b1=0.9,  # of 'adam'
    b2=0.999,
    momentum=0.9,  # of 'sgd'
    clip_norm=0.0,  # 0: no clipping
  ),
  train=dict(
    accumulate_steps=1,  # parts of a batch, one after the other
    log_every=20,  # steps
    checkpoint_every="5%",
    keep=2,  # latest checkpoints, beside the best
    best="",
    allow_config_change=False,
    skip_damaged=False,  # put damaged checkpoints aside, go on from the one before
  ),
)

# Trainings without labels.
PRETRAIN = dict(
  eval=dict(
    every="5%",  # of the training: the pretext task on held-out videos or images
    batch_size=16,
    max_sources=1600,
    # k-NN of so many videos of each split, one clip each, as often; 0: none. Where the
    # data have labels, which the training never sees.
    online_videos=256,
    # What the encoder is worth on labelled videos, where the data have labels:
    probe=True,  # retrieval and k-NN beside random initialisation
    linear=True,  # and a linear classifier
    test_every="0 steps",  # in any case at the end
    clips=10,  # per video
    max_videos=0,  # of each split, a share of every class; 0: all
    crop_ratio=0.875,  # side of the square crop, of the short side
  ),
)

# Those that may take a part of the videos.
SUBSET = dict(
  data=dict(
    per_class=0,  # videos per class; 0: all. MoSI, table 3: 3, 5, 7, 9, 11, 13
    fraction=1.0,  # share of each class's videos. MoDist, table 6: 0.01 to 0.8
    subset_seed=0,  # of these choices, which are nested
  ),
)

# Those on labels.
CLASSIFY = dict(
  init_from="",  # folder of a run, a checkpoint, a PyTorch file, or 'scratch'
  method=dict(
    name="classify",
    classes=0,  # 0: as many as the data set has
    class_names=(),  # filled in from the data set
    frozen_stages=0,  # first stages that stay as they are; 5: linear probe
    head_decay=0.0,  # weight decay of the classifier alone, beside optim.weight_decay
    segments=False,  # a frame of each part of a video, whatever its length
    crop="resized",  # random area and aspect; 'plain': `size` x `size` pixels
    flip=0.5,  # probability
    mean=(0.45, 0.45, 0.45),  # MoSI's code, SlowFast
    std=(0.225, 0.225, 0.225),
  ),
  data=dict(
    fps=30.0,  # 0: the video's own
  ),
  eval=dict(
    every="5%",  # of the training: accuracy of the middle clip of held-out videos
    batch_size=64,
    max_sources=0,  # of them; 0: all
    test_every="0 steps",  # the test over videos; in any case at the end
    clips=10,  # at the end, per video: MoSI, section 4.1; 0: all, without overlap
    crops=1,  # or 3, side by side
    crop_ratio=0.875,  # side of the square crop, of the short side (MoSI's code)
    size=0,  # pixels to which it is resized; 0: method.size
    # Of crops larger than method.size: softmax at each place, then the mean (SlowFast),
    # or False: the softmax of the mean feature.
    place_scores=False,
  ),
)


def recipe(
  name: str,
  arg: ConfigDict,
  tables: Mapping[str, Mapping[str, Any]],
  *shared: Mapping[str, Any],
) -> ConfigDict:
  """The config that an argument asks for: shared settings, then tables in their order.

  Args:
    name: of the run.
    arg: from `parse_arg`; `network` names the encoder.
    tables: of settings by section, each under what an argument must say for it:
      'ucf101,network=r3d_18,linear' all of these, 'smoke|folder' one, '' nothing. A
      later one wins; none but '' has new settings.
    *shared: what comes before these, beside `COMMON`.

  Raises:
    KeyError: for a setting that '' and the shared ones lack.
    TypeError: for a value of another type than theirs.
  """
  said = {arg.word, *(f"{key}={value}" for key, value in arg.items())}
  said |= {key for key, value in arg.items() if value is True}
  config = ConfigDict(COMMON)
  config.name, config.model.name = name, arg.network
  for settings in shared:
    config.update(settings)
  for condition, table in tables.items():
    if all(said & {*part.split("|")} for part in condition.split(",") if part):
      try:
        config.update(table)
      except KeyError as error:
        error.add_note(
          f"Table {condition!r} sets it: misspelt, or else add it to the first one, ''."
        )
        raise
    config.lock()
  return config.unlock()
