"""MoDist pretraining (Xiao et al., 2021).

  python -m motion_jax.main --config=configs/modist.py          embedded videos
  ... --config=configs/modist.py:smoke                          3 steps, a trial
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

from motion_jax.config import parse_arg
from motion_jax.recipe import PRETRAIN, SUBSET, recipe

SMALL = "synthetic_actions|smoke|folder"
WORDS = (*SMALL.split("|"), "kinetics400", "kinetics400_mini")
# For two CPU cores; the paper's is r3d_50 (table 1).
NETWORKS = dict.fromkeys(SMALL.split("|"), "r3d_10")


def get_config(arg=None):
  arg = parse_arg(arg, words=WORDS, network="")
  arg.network = arg.network or NETWORKS.get(arg.word, "r3d_50")
  return recipe(f"modist-{arg.word}", arg, TABLES, PRETRAIN, SUBSET)


# Those that the argument asks for, in order: a later one wins; see motion_jax/recipe.py
# fmt: off
TABLES = {
  "": dict(
    method=dict(
      name="modist",
      motion="edges",  # of the flow; or "flow", "frame_difference": table 3b
      # Weights of L_v, L_m and L_mv, Eq. 1 to 3; 0: without.
      loss_visual=1.0, loss_motion=1.0, loss_cross=1.0,
      cross_negatives="query",  # modality of L_mv's negatives, Eq. 2; 'key': as others
      temperature=0.1, momentum=0.999, embedding=128,  # section 4.1
      queue_size=65536,  # N, section 4.1
      projection_layers=2,  # open: MoCo v2; 1: MoCo, 3: SlowFast
      projection_hidden=0,  # open: as wide as the features
      projection_norm=False,  # open: batch norm at its end (SimCLR, MoCo v3)
      key_regroup=True,  # open: keys are in other batch norm groups than queries (MoCo)
      frames=8,  # visual clip, section 3.3
      motion_frames=16,  # section 3.3
      size=224,  # section 3.3, table 2
      area=(0.2, 1.0), aspect=(3 / 4, 4 / 3),  # open: of the visual crop
      jitter=0.8,  # probability of the next four, section 4.1
      brightness=0.4, contrast=0.4, saturation=0.4,
      hue=0.0,  # not in the paper's list
      grayscale=0.2, blur=0.5, flip=0.5,  # probabilities
      blur_sigma=(0.1, 2.0),  # open: SimCLR; pixels
      mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225),  # open: SlowFast
      flow_warps=2, flow_fixed_points=1, flow_iterations=8,  # with data.flow=''
    ),
    data=dict(
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
      short_side=256, canvas=(256, 455),  # larger ones are cropped
    ),
    model=dict(
      motion_name="motion_r50",  # table 1
      motion_width=8,  # table 1: an eighth
      bn_groups=8,  # open: batch norm over 64 clips, as on each of 8 GPUs
    ),
    optim=dict(  # open, all of it: SlowFast's contrastive recipe with half its rate
      name="sgd", momentum=0.9,
      learning_rate=0.4,  # for 512 videos
      warmup="35 epochs", warmup_start=1e-3,
      weight_decay=1e-4,  # of weights only
    ),
    train=dict(
      duration="600 epochs",  # section 4.1; 100, 200, 400: table 3d
      batch_size=512,  # open: videos; four clips of each
      checkpoint_every="2%",
      best="",  # contrastive accuracy does not tell which encoder is best
    ),
    eval=dict(batch_size=64),
  ),
  "network=r3d_18": dict(
    method=dict(size=128),  # section 3.3, table 2
    data=dict(short_side=146, canvas=(146, 259)),  # open: as 224 of 256
  ),
  SMALL: dict(  # width 16 on 8x64x64 clips
    method=dict(
      size=64, motion_frames=8, area=(0.4, 1.0), blur_sigma=(0.1, 0.5), queue_size=512,
      momentum=0.9,  # a few hundred steps
      # Without it embeddings start in a narrow cone, whose drift tells new keys from
      # old.
      projection_norm=True,
      # In so few videos the paper's negatives are told from keys by their modality
      # alone, and statistics of the whole batch tell which keys are of this step.
      cross_negatives="key",
    ),
    data=dict(
      interval=4, motion_interval=4,  # 1.1 of the 1.6 seconds of an embedded video
      short_side=80, canvas=(80, 142), flow="variational", motion_threshold=0.0,
    ),
    # 12 convolutions to compile for motion, not 53
    model=dict(width=16, motion_name="r3d_10", bn_groups=4),
    optim=dict(name="adam", learning_rate=3e-3, warmup="20 steps"),
    train=dict(batch_size=64, duration="500 steps", checkpoint_every="100 steps"),
    eval=dict(every="100 steps", max_sources=64, clips=2),
  ),
  f"{SMALL},network=r3d_10": dict(  # width 8 on 8x32x32 clips: minutes on two CPU cores
    method=dict(size=32), model=dict(width=8),
    data=dict(short_side=40, canvas=(40, 71)),
  ),
  # Of the embedded videos the classes differ in motion alone: L_v, which appearance
  # alone can lower, gets a small weight; colours stay as they are, crops are nearly the
  # whole frame, and the clips of a video begin at one time: in 500 steps RGB is learned
  # from motion only so.
  "synthetic_actions": dict(
    method=dict(loss_visual=0.1, area=(0.8, 1.0), jitter=0.0, grayscale=0.0, blur=0.0),
    # 64: half of theirs, to have it in minutes
    data=dict(synchronised=True, flow_short_side=64),
  ),
  # Needs no preparation. Flow edges are better (78.1 to 71.6, table 3b): prepare them,
  # then --config.method.motion=edges --config.data.flow=variational
  # --config.data.flow_interval=5
  "smoke|folder": dict(
    method=dict(motion="frame_difference"),
    data=dict(flow="", flow_interval=1),
  ),
  "folder": dict(data=dict(name="folder")),
  "smoke": dict(  # three steps of the smallest network
    method=dict(frames=4, motion_frames=4, queue_size=64, embedding=16),
    data=dict(name="synthetic_actions:tiny"), optim=dict(warmup="1 steps"),
    train=dict(
      batch_size=8, duration="3 steps", log_every=1, checkpoint_every="2 steps",
    ),
    eval=dict(every="3 steps", batch_size=8, max_sources=8, clips=1),
  ),
  "kinetics400|kinetics400_mini": dict(
    data=dict(name="kinetics400"),
    # k-NN of some videos now and then, which shows short cuts that the contrast hides:
    # 20 of every class, and as many of the held-out ones. configs/evaluate.py measures
    # the rest, on UCF101 or HMDB51.
    eval=dict(linear=False, test_every="10%", clips=2, max_videos=8000),
  ),
  "kinetics400_mini": dict(
    data=dict(per_class=150),  # 60,000 videos, section 4.1; open: 150 per class
    optim=dict(warmup="10 epochs"),
    train=dict(duration="100 epochs"),  # section 4.1
  ),
}
# fmt: on


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
