"""MoDist: contrast RGB clips and motion clips, with momentum keys and two queues.

Xiao, Tighe, Modolo, MoDist: Motion Distillation for Self-supervised Video
Representation Learning, 2021.
"""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import sharding
from motion_jax.config import UserError
from motion_jax.methods.base import Method
from motion_jax.methods.contrast_scores import ContrastScores, spread
from motion_jax.methods.modist_inputs import Inputs
from motion_jax.methods.momentum import Embedder, MomentumPair
from motion_jax.methods.settings import check_settings
from motion_jax.models import build_model
from motion_jax.models.precision import compute_options
from motion_jax.ops import contrast
from motion_jax.ops.motion_inputs import CHANNELS


class Modist(Method):
  """The pretext task of a config with `method.name = 'modist'`.

  The visual network is the encoder. With only `loss_visual` there is no motion
  network at all: the RGB-only baseline of the paper's Table 3a.

  Args:
    config: a whole config; its sections method, model, data and train are read.
    mesh: whose devices split rows and queues; None for all devices.

  Raises:
    UserError: for settings that cannot work together.
  """

  def __init__(self, config: ConfigDict, mesh: Mesh | None = None):
    check_settings(config)
    method = self._config = config.method
    self._slot = config.train.batch_size // config.train.accumulate_steps
    mesh = sharding.make_mesh() if mesh is None else mesh
    # Evaluations have any number of devices: each has whole queues if need be.
    self._mesh = mesh if self._shares_queues(mesh) else None
    self._scores = ContrastScores(method, self._mesh)
    self._modalities = self._scores.modalities
    self.metrics = self._scores.metrics()
    self.clips_per_example = 2 * len(self._modalities)
    self._inputs = Inputs(config, motion="motion" in self._modalities)
    what = "train.batch_size / train.accumulate_steps, the keys of a step"
    sharding.check_batch_size("method.queue_size", method.queue_size, self._slot, what)
    if not 0 <= method.momentum <= 1:
      raise UserError(f"method.momentum={method.momentum} must be in [0, 1]")
    self._pairs = {
      name: MomentumPair(
        partial(_build, config.model, method, name),
        momentum=method.momentum,
        regroup=method.key_regroup,
      )
      for name in self._modalities
    }
    jax.eval_shape(self.init, jax.random.key(0))

  def init(self, key):
    params, aux = {}, {"queues": {}}
    for index, (name, pair) in enumerate(self._pairs.items()):
      pair_key, queue_key = jax.random.split(jax.random.fold_in(key, index))
      params[name], aux[name] = pair.init(pair_key)
      aux["queues"][name] = contrast.make_queue(
        queue_key,
        size=self._config.queue_size,
        batch_size=self._slot,
        dim=self._config.embedding,
      )
    return params, aux

  def aux_shardings(self, mesh: Mesh):
    """Where aux lies on a mesh: queues are split over its devices, if these can."""
    everywhere = sharding.replicated(mesh)
    queue = contrast.queue_shardings(mesh) if self._shares_queues(mesh) else everywhere
    return dict.fromkeys(self._modalities, everywhere) | {
      "queues": dict.fromkeys(self._modalities, queue)
    }

  def check_training(self, mesh: Mesh) -> None:
    what = "train.batch_size / train.accumulate_steps"
    devices = f"{mesh.size} devices, which share the queues"
    sharding.check_batch_size(what, self._slot, mesh.size, devices)

  def loss(self, params, aux, batch, key, step):
    clips = self._inputs(key, batch)
    queries, keys, spreads, aux = self._embed(params, aux, clips, batch, train=True)
    outputs = self._scores(queries, keys, aux["queues"], batch["index"], batch)
    outputs |= spreads
    queues = {
      name: self._enqueue(queue, keys[name], batch)
      for name, queue in aux["queues"].items()
    }
    total = jnp.sum(outputs["loss"] * outputs["mask"])
    total /= jnp.maximum(jnp.sum(outputs["mask"]), 1)
    return total, ({**aux, "queues": queues}, outputs)

  def after_update(self, params, aux, step):
    """Moves the momentum copies, so that the next keys come from the moved ones."""
    moved = {
      name: pair.follow(params[name], aux[name]) for name, pair in self._pairs.items()
    }
    return {**aux, **moved}

  def predict(self, params, aux, batch):
    """Contrast of held-out clips with the queues, which stay as they are.

    Clips are cropped and augmented as in training; a row's draws follow from its index.
    The queues hold training videos, whose numbers are not those of held-out ones, so no
    negative is left out.
    """
    clips = self._inputs.heldout(batch)
    queries, keys, spreads, _ = self._embed(params, aux, clips, batch, train=False)
    ids = jnp.full_like(batch["index"], contrast.EMPTY)
    return self._scores(queries, keys, aux["queues"], ids, batch) | spreads

  def pretext(self, batch, key, step):
    """The clips of `modist_inputs.Inputs`, by name."""
    return self._inputs(key, batch)

  def encoder(self, params, aux):
    return self._pairs["visual"].network(params["visual"], aux["visual"]).encoder

  def with_encoder(self, params, aux, encoder):
    own = self._pairs["visual"].with_encoder(params["visual"], aux["visual"], encoder)
    return {**params, "visual": own[0]}, {**aux, "visual": own[1]}

  def save_figures(self, directory: pathlib.Path, batch, key):
    """Writes query and key, RGB and motion, of the first videos: a PNG and a GIF."""
    from motion_jax.visualize import modist as figures

    clips = jax.device_get(self._inputs.first(key, batch, 3))
    directory.mkdir(parents=True, exist_ok=True)
    figures.save_pretext(
      directory / "pretext",
      clips,
      kind=self._config.motion,
      mean=self._config.mean,
      std=self._config.std,
    )

  def _shares_queues(self, mesh):
    """Whether the devices divide the rows of a queue."""
    return self._slot % mesh.size == 0

  def _embed(self, params, aux, clips, batch, *, train):
    """Queries, keys, spreads of features, and aux with the statistics of this batch."""
    queries, keys, spreads, aux = {}, {}, {}, dict(aux)
    valid = batch["valid"]
    for name, pair in self._pairs.items():
      with jax.named_scope(f"{name}_query"):
        (queries[name], features), aux[name] = pair.embed_queries(
          params[name], aux[name], clips[f"{name}_query"], train=train
        )
      value = spread(contrast.normalize_embedding(features), valid)
      spreads[f"{name}_feature_spread"] = jnp.full(len(valid), value)
      with jax.named_scope(f"{name}_key"):
        keys[name], aux[name] = pair.embed_keys(
          aux[name], clips[f"{name}_key"], train=train
        )
    return queries, keys, spreads, aux

  def _enqueue(self, queue, key, batch):
    """Rows that could not be decoded leave what they would overwrite in its place."""
    valid = batch["valid"]
    key = jnp.where(valid[:, None], key, queue.keys[queue.cursor])
    ids = jnp.where(valid, batch["index"], queue.ids[queue.cursor])
    return contrast.enqueue(queue, key, ids, mesh=self._mesh)


def _build(model: ConfigDict, method: ConfigDict, modality: str, rngs) -> Embedder:
  sizes = dict(name=model.name, width=model.width)
  if modality == "motion":
    sizes = dict(name=model.motion_name, width=model.motion_width)
    sizes["in_channels"] = CHANNELS[method.motion]
  encoder = build_model(
    **sizes,
    rngs=rngs,
    **compute_options(model),
    lowering=model.lowering,
    remat=model.remat,
    bn_groups=model.bn_groups,
  )
  return Embedder(
    encoder,
    rngs=rngs,
    outputs=method.embedding,
    layers=method.projection_layers,
    hidden=method.projection_hidden or None,
    norm=method.projection_norm,
    bn_groups=model.bn_groups,
  )
