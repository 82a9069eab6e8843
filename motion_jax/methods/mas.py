"""MAS: regress where motion and colour change most in a clip, and how.

Wang et al., Self-supervised Spatio-temporal Representation Learning for Videos by
Predicting Motion and Appearance Statistics, CVPR 2019.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.config import UserError, choose
from motion_jax.data import motion_codec
from motion_jax.data.flow_clips import INTERVAL, FlowClip
from motion_jax.methods.base import Method, first_rows, masked_mean, matrix_penalty
from motion_jax.methods.label_scores import LabelScores
from motion_jax.models import encoder_of
from motion_jax.models.c3d import FullyConnected
from motion_jax.models.heads import Classifier, Headed
from motion_jax.ops import (
  augment,
  crops,
  motion_inputs,
  motion_statistics,
  partition,
  statistics,
)


class Mas(Method):
  """The pretext task of a config with `method.name = 'mas'`; see `Method`."""

  def __init__(self, config, settings=None):
    super().__init__(config, settings)
    method = self.settings
    table = statistics.label_table(method.frames)
    self._columns = _selected(method, table)
    self.scores = LabelScores(
      [table[column] for column in self._columns],
      method.objective,
      {name: method[f"{name}_weight"] for name in statistics.BRANCHES},
    )
    self.metrics = self.scores.metrics()
    self._check_room()
    try:
      partition.masks(method.size)
    except ValueError as error:
      raise UserError(f"method.size={method.size}: {error}") from error
    self._check_pretext(video=(method.frames, *config.data.canvas, 3))

  def sampler(self, split, source=None):
    """A clip, of held-out videos the middle one; with its flow if that is prepared."""
    if not self.config.data.flow:
      return self._clip_sampler(split)
    flow = self._open_motion(split, source, store="flow", interval=INTERVAL)
    return FlowClip(flow, middle=split == "heldout", **self._clip)

  def build(self, rngs):
    """An encoder and, per branch, three fully connected layers, or a linear one."""
    encoder, hidden = encoder_of(self.config.model, rngs), self.settings.hidden
    make = FullyConnected if hidden else Classifier
    options = dict(dropout=0.0, rngs=rngs) | (dict(hidden=hidden) if hidden else {})
    sizes = self.scores.output_sizes()
    return Headed(encoder, [make(encoder.features, n, **options) for n in sizes])

  def pretext(self, batch, key, step):
    """Clips [B, T, S, S, 3] normalised, and their labels [B, K] from 1."""
    return self.inputs(batch, key)[:2]

  def loss(self, params, aux, batch, key, step):
    clips, labels, still = self.inputs(batch, key)
    predicted, aux = self.call(params, aux, clips, train=True)
    outputs = self._outputs(predicted, labels, still, batch["valid"])
    loss = masked_mean(outputs["loss"], outputs["mask"])
    # As in the official code: L2 of the fully connected weights only.
    loss += matrix_penalty(self.settings.head_decay, params["heads"])
    return loss, (aux, outputs)

  def predict(self, params, aux, batch):
    """Centred crops that are not mirrored."""
    clips, labels, still = self.inputs(batch, None)
    predicted, _ = self.call(params, aux, clips, train=False)
    return self._outputs(predicted, labels, still, batch["valid"])

  def save_figures(self, directory, batch, key):
    """Draws the statistics of the first clips, and the clips with their flow."""
    from motion_jax.visualize import statistics as pictures

    draws = jax.jit(self._draw)(key, batch["extent"])
    video, flow = jax.jit(self._cut)(*first_rows(4, batch, draws))
    labels = jax.jit(self._labels)(video, flow)[0]
    pictures.save_statistics(directory / "pretext.png", video, flow, labels)
    pictures.save_flow_gif(directory / "pretext.gif", video, flow)

  def save_results(self, directory, params, aux, batch):
    """Draws the statistics of the first held-out clips beside what is predicted."""
    from motion_jax.visualize import statistics as pictures

    few = {name: array[:4] for name, array in batch.items()}
    video, flow = jax.jit(self.crop)(few, None)
    labels = np.asarray(jax.jit(self._labels)(video, flow)[0])
    guesses = np.zeros_like(labels)
    guesses[:, list(self._columns)] = jax.jit(self.predict)(params, aux, few)["guesses"]
    pictures.save_statistics(
      directory / "predictions.png", video, flow, labels, guesses
    )

  def inputs(self, batch, key):
    """(clips, labels, still): network input, [B, K] from 1, clips without motion."""
    video, flow = self.crop(batch, key)
    labels, still = self._labels(video, flow)
    clips = video.astype(jnp.float32) / 255
    clips = augment.normalize(clips, self.settings.mean, self.settings.std)
    return clips, labels[:, jnp.array(self._columns)], still

  def crop(self, batch, key):
    """Crops [B, T, S, S, 3] uint8 and their flow; `key` None: central, not mirrored."""
    return self._cut(batch, self._draw(key, batch["extent"]))

  def flow(self, video, extent):
    """[B, T - 1, H, W, 2]: from each frame to the next; see `motion_inputs`."""
    method = self.settings
    with jax.named_scope("flow"):
      return motion_inputs.flow_of_pairs(
        jnp.stack([video[:, :-1], video[:, 1:]], 2),
        extent,
        warps=method.flow_warps,
        fixed_points=method.flow_fixed_points,
        iterations=method.flow_iterations,
        finest=method.flow_level,
      )

  def _draw(self, key, extent):
    """Corners [B, 2] of crops, and which of them are mirrored [B]."""
    size, count = self.settings.size, len(extent)
    if key is None:
      return crops.center_crops(extent, size=size)[:, :2], jnp.zeros(count, bool)
    corner_key, flip_key = jax.random.split(key)
    corner = crops.draw_crops(corner_key, extent, size=size)[:, :2]
    return corner, jax.random.bernoulli(flip_key, self.settings.flip, (count,))

  def _cut(self, batch, draws):
    """Crops and their flow, which sees what enters a crop from outside."""
    extent, (corner, flip) = batch["extent"], draws
    if "flow" in batch:  # back to the frame before: the other way it is the opposite
      flow = -motion_codec.decode_flow(batch["flow"])
    else:
      flow = self.flow(batch["video"], extent)
    turned = crops.is_turned(extent, batch["video"].shape[2:4])
    corner = jnp.where(turned[:, None], corner[:, ::-1], corner)
    cut = jax.vmap(partial(_square, size=self.settings.size))
    video, flow = (
      crops.turn_back(cut(clips, corner), turned) for clips in (batch["video"], flow)
    )
    flip = flip[:, None, None, None, None]
    mirrored = motion_statistics.mirror_flow(flow)
    return jnp.where(flip, video[:, :, :, ::-1], video), jnp.where(flip, mirrored, flow)

  def _labels(self, video, flow):
    """All labels [B, 27], and which clips are still [B]."""
    method = self.settings
    return statistics.clip_labels(
      video, flow, voting=method.voting, colour=method.colour
    )

  def _outputs(self, predicted, labels, still, valid):
    found = dict(still=still.astype(jnp.float32), mask=valid)
    return self.scores(predicted, labels) | found


def _selected(method, table):
  """Positions in the table of the labels that a config's `method` section asks for."""
  for name in method.patterns:
    choose("method.patterns", name, partition.PATTERNS)
  columns = statistics.select_labels(
    table,
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


def _square(video, corner, size):
  """[T, H, W, C] -> [T, size, size, C] at corner (top, left)."""
  start = (0, corner[0], corner[1], 0)
  return jax.lax.dynamic_slice(video, start, (len(video), size, size, video.shape[-1]))
