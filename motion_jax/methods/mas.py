"""MAS: regress where motion and colour change most in a clip, and how.

Wang et al., Self-supervised Spatio-temporal Representation Learning for Videos by
Predicting Motion and Appearance Statistics, CVPR 2019.
"""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.data import motion_codec
from motion_jax.methods.base import Method, first_rows
from motion_jax.methods.label_scores import OBJECTIVES, LabelScores
from motion_jax.methods.settings import check_settings
from motion_jax.models import build_model
from motion_jax.models.c3d import FullyConnected
from motion_jax.models.common import call, split
from motion_jax.models.heads import Classifier
from motion_jax.models.precision import FLOAT32, compute_options
from motion_jax.ops import (
  augment,
  crops,
  motion_inputs,
  motion_statistics,
  partition,
  statistics,
)
from motion_jax.ops.appearance_statistics import COLOUR_NAMES

# Boundaries of less than this everywhere (six times the slope in pixels per pixel,
# summed over the frames) are those of a clip in which nothing moves.
_STILL = 1e-3


class Network(nnx.Module):
  """An encoder and one head per branch.

  Args:
    encoder: from `build_model`.
    outputs: number of outputs of each branch.
    hidden: size of the two hidden layers of a head; 0 for linear heads.
    rngs: the `params` stream draws the heads' weights.
  """

  def __init__(self, encoder, outputs: list[int], hidden: int, *, rngs):
    self.encoder = encoder
    self.heads = nnx.List(
      FullyConnected(encoder.features, count, hidden=hidden, rngs=rngs)
      if hidden
      else Classifier(encoder.features, count, dropout=0.0, rngs=rngs)
      for count in outputs
    )

  def __call__(self, video: jax.Array) -> list[jax.Array]:
    """[B, T, H, W, C] normalised video -> [B, outputs] float32 for every branch."""
    features = self.encoder(video)
    return [head(features) for head in self.heads]


class Mas(Method):
  """The pretext task of a config with `method.name = 'mas'`.

  Args:
    config: a whole config; its `method`, `model` and `data` sections are read.

  Raises:
    UserError: for settings that cannot work together.
  """

  clips_per_example = 1

  def __init__(self, config: ConfigDict):
    check_settings(config)
    method = self._config = config.method
    choose("method.objective", method.objective, OBJECTIVES)
    choose("data.sampler", config.data.sampler, ("clip",))
    self._columns = _selected(method)
    table = statistics.label_table(method.frames)
    self._scores = LabelScores(
      [table[column] for column in self._columns],
      method.objective,
      {name: method[f"{name}_weight"] for name in statistics.BRANCHES},
    )
    self.metrics = self._scores.metrics()
    room = min(*config.data.canvas, config.data.short_side)
    if room < method.size:
      raise UserError(
        f"a crop of method.size={method.size} pixels does not fit into "
        f"data.short_side={config.data.short_side}, data.canvas="
        f"{tuple(config.data.canvas)}: make these larger"
      )
    try:
      partition.masks(method.size)
    except ValueError as error:
      raise UserError(f"method.size={method.size}: {error}") from error
    self._build = partial(
      _build, config.model, self._scores.output_sizes(), method.hidden
    )
    self._graphdef = nnx.graphdef(nnx.eval_shape(lambda: self._build(nnx.Rngs(0))))
    self._check(tuple(config.data.canvas))

  def init(self, key):
    _, params, stats = split(self._build(nnx.Rngs(key)))
    return params, {"stats": stats}

  def loss(self, params, aux, batch, key, step):
    clips, labels, still = self._make_clips(batch, key)
    with jax.named_scope("network"):
      outputs, stats = call(self._graphdef, params, aux["stats"], clips, train=True)
    outputs = self._score(outputs, labels, still, batch["valid"])
    total = jnp.sum(outputs["loss"] * outputs["mask"])
    total /= jnp.maximum(jnp.sum(outputs["mask"]), 1)
    if self._config.head_decay:
      # As in the official code: L2 of the fully connected weights only.
      kernels = [x for x in jax.tree.leaves(params["heads"]) if x.ndim > 1]
      total += self._config.head_decay / 2 * sum(map(_square_sum, kernels))
    return total, ({"stats": stats}, outputs)

  def predict(self, params, aux, batch):
    """Centred crops that are not mirrored."""
    clips, labels, still = self._make_clips(batch, None)
    outputs, _ = call(self._graphdef, params, aux["stats"], clips, train=False)
    return self._score(outputs, labels, still, batch["valid"])

  def pretext(self, batch, key, step):
    """Clips [B, T, S, S, 3] normalised, and their labels [B, K] from 1."""
    return self._make_clips(batch, key)[:2]

  def encoder(self, params, aux):
    return self._network(params, aux).encoder

  def with_encoder(self, params, aux, encoder):
    network = self._network(params, aux)
    nnx.update(network.encoder, nnx.state(encoder))
    _, params, stats = split(network)
    return params, {"stats": stats}

  def save_figures(self, directory: pathlib.Path, batch, key):
    """Writes the statistics of the first clips, and the clips with their flow."""
    from motion_jax.visualize import statistics as figures

    draws = jax.jit(self._draw)(key, batch["extent"])
    video, flow = self._draw_statistics(directory / "pretext.png", batch, draws, None)
    figures.save_flow_gif(directory / "pretext.gif", video, flow)

  def save_results(self, directory: pathlib.Path, params, aux, batch):
    """Writes the statistics of the first held-out clips beside what is predicted."""
    few = {name: array[:4] for name, array in batch.items()}
    found = jax.device_get(jax.jit(self.predict)(params, aux, few)["guesses"])
    guesses = np.zeros((len(found), len(statistics.label_table(2))), int)
    guesses[:, list(self._columns)] = found
    draws = self._draw(None, few["extent"])
    self._draw_statistics(directory / "predictions.png", few, draws, guesses)

  def _draw_statistics(self, path, batch, draws, guesses):
    """Draws the first clips of a batch; returns these clips and their flow."""
    from motion_jax.visualize import statistics as figures

    few, draws = first_rows(4, batch, draws)
    video, flow = jax.jit(self._cut_clips)(few, draws)
    values = jax.jit(self._statistics)(video, flow)
    boundaries, _ = jax.jit(motion_statistics.motion_boundaries)(flow)
    path.parent.mkdir(parents=True, exist_ok=True)
    video, flow, boundaries = jax.device_get((video, flow, boundaries))
    figures.save_statistics(
      path,
      *(video, flow, boundaries),
      labels=jax.device_get(_labels(values)[0]),
      table=statistics.label_table(self._config.frames),
      regions=partition.by_pattern(self._config.size),
      colours=COLOUR_NAMES,
      guesses=guesses,
    )
    return video, flow

  def _network(self, params, aux):
    network = nnx.merge(self._graphdef, params, aux["stats"])
    network.eval()
    return network

  def _check(self, canvas):
    """Lets the operations refuse settings now instead of in the first step."""
    method = self._config
    batch = {
      "video": jax.ShapeDtypeStruct((1, method.frames, *canvas, 3), jnp.uint8),
      "extent": jax.ShapeDtypeStruct((1, 2), jnp.int32),
    }
    jax.eval_shape(partial(self.pretext, key=jax.random.key(0), step=0), batch)

  def _make_clips(self, batch, key):
    """(clips, labels, still): network input, [B, K] from 1, clips without motion."""
    video, flow = self._crop(batch, key)
    labels, still = _labels(self._statistics(video, flow))
    labels = labels[:, jnp.array(self._columns)]
    clips = augment.normalize(
      video.astype(jnp.float32) / 255, self._config.mean, self._config.std
    )
    return clips, labels, still

  def _draw(self, key, extent):
    """Corners [B, 2] of crops, which are mirrored; `key` None: central ones, none."""
    size, count = self._config.size, len(extent)
    if key is None:
      return jnp.maximum(extent - size, 0) // 2, jnp.zeros(count, bool)
    corner_key, flip_key = jax.random.split(key)
    corner = crops.draw_crops(corner_key, extent, size=size)[:, :2]
    return corner, jax.random.bernoulli(flip_key, self._config.flip, (count,))

  def _crop(self, batch, key):
    """Crops [B, T, S, S, 3] uint8 and their flow; `key` None: central, not mirrored."""
    return self._cut_clips(batch, self._draw(key, batch["extent"]))

  def _cut_clips(self, batch, draws):
    """Crops and their flow at given places.

    The flow sees the frames before they are cropped, so that what enters a crop is
    seen to move too.
    """
    extent, (corner, flip) = batch["extent"], draws
    if "flow" in batch:
      flow = motion_codec.decode_flow(batch["flow"])
      # From each frame back to the one before: the other way it is the opposite.
      flow = -flow
    else:
      flow = self._flow(batch["video"], extent)
    turned = crops.is_turned(extent, batch["video"].shape[2:4])
    corner = jnp.where(turned[:, None], corner[:, ::-1], corner)
    cut = jax.vmap(partial(_cut, size=self._config.size))
    video, flow = (
      crops.turn_back(cut(clips, corner), turned) for clips in (batch["video"], flow)
    )
    flip = flip[:, None, None, None, None]
    mirrored = motion_statistics.mirror_flow(flow)
    return jnp.where(flip, video[:, :, :, ::-1], video), jnp.where(flip, mirrored, flow)

  def _flow(self, video, extent):
    """[B, T - 1, H, W, 2]: from each frame to the next; see `motion_inputs`."""
    method = self._config
    with jax.named_scope("flow"):
      return motion_inputs.flow_of_pairs(
        jnp.stack([video[:, :-1], video[:, 1:]], 2),
        extent,
        warps=method.flow_warps,
        fixed_points=method.flow_fixed_points,
        iterations=method.flow_iterations,
        finest=method.flow_level,
      )

  def _statistics(self, video, flow):
    return statistics.clip_statistics(
      video, flow, voting=self._config.voting, colour=self._config.colour
    )

  def _score(self, outputs, labels, still, valid):
    scores = self._scores(outputs, labels)
    return {**scores, "still": still.astype(jnp.float32), "mask": valid}


def _labels(values):
  """All labels [B, 27], those of motion 1 where nothing moves; where that is [B]."""
  still = values.motion.regions.max((1, 2)) < _STILL
  branches = [label.branch for label in statistics.label_table(2)]
  of_motion = np.array(branches) == "motion"
  labels = jnp.where(still[:, None] & of_motion, 1, statistics.clip_labels(values))
  return labels, still


def _selected(method):
  """Positions of the labels that a config's `method` section asks for."""
  for name in method.patterns:
    choose("method.patterns", name, partition.PATTERNS)
  columns = statistics.select_labels(
    statistics.label_table(method.frames),
    branches=[name for name in statistics.BRANCHES if method[name]],
    patterns=method.patterns,
    local_labels=method.local_labels,
    global_labels=method.global_labels,
  )
  if not columns or method.frames < 2:
    raise UserError(
      "nothing to learn: set method.motion or method.appearance, method.local_labels "
      "(with method.patterns) or method.global_labels, and at least 2 method.frames"
    )
  return columns


def _build(model: ConfigDict, outputs, hidden, rngs):
  encoder = build_model(
    model.name,
    rngs=rngs,
    width=model.width,
    **compute_options(model),
    lowering=model.lowering,
    remat=model.remat,
    bn_groups=model.bn_groups,
  )
  return Network(encoder, outputs, hidden, rngs=rngs)


def _square_sum(x):
  return jnp.vdot(x, x, precision=FLOAT32)


def _cut(video, corner, size):
  """[T, H, W, C] -> [T, size, size, C] at corner (top, left)."""
  start = (0, corner[0], corner[1], 0)
  return jax.lax.dynamic_slice(video, start, (len(video), size, size, video.shape[-1]))
