"""MoDist: contrast RGB clips and motion clips, with momentum keys and two queues.

Xiao, Tighe, Modolo, MoDist: Motion Distillation for Self-supervised Video
Representation Learning, 2021.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from motion_jax.config import UserError, choose
from motion_jax.data.motion import Distill
from motion_jax.methods import modist_metrics
from motion_jax.methods.base import Method, masked_mean
from motion_jax.methods.modist_inputs import Inputs
from motion_jax.methods.momentum import Embedder, MomentumPair
from motion_jax.models import encoder_of
from motion_jax.ops import contrast
from motion_jax.ops.motion_inputs import CHANNELS
from motion_jax.scale import sharding

_WEIGHTS = {  # of the objectives: Eq. 3 with factors, which are 1 in the paper
  "visual": "loss_visual",
  "motion": "loss_motion",
  "visual_to_motion": "loss_cross",
  "motion_to_visual": "loss_cross",
}
_SMALLEST = 7  # pixels: half of the blur's 13 taps, mirrored, and one


class Modist(Method):
  """The pretext task of a config with `method.name = 'modist'`; see `Method`.

  The visual network is the encoder. With only `loss_visual` there is no motion
  network at all: the RGB-only baseline of the paper's Table 3a.

  Of params and aux, [modality] is that of a `MomentumPair`; aux['queues'] has a queue
  for each modality.
  """

  def __init__(self, config, settings=None):
    super().__init__(config, settings)
    method, data, train = self.settings, config.data, config.train
    if not method.loss_visual + method.loss_cross:
      raise UserError(
        "the visual network must learn: set method.loss_visual or loss_cross above 0"
      )
    choose("method.motion", method.motion, (*CHANNELS,))
    if method.motion == "frame_difference" and data.flow:
      raise UserError(
        "method.motion='frame_difference' is made of RGB frames: set data.flow=''"
      )
    self._check_room()
    if method.size < _SMALLEST:
      raise UserError(
        f"method.size={method.size} is too small to be blurred: {_SMALLEST} or more"
      )
    self._slot = train.batch_size // train.accumulate_steps
    what = "train.batch_size / train.accumulate_steps, the keys of a step"
    sharding.check_batch_size("method.queue_size", method.queue_size, self._slot, what)
    motion = bool(method.loss_motion or method.loss_cross)
    self._inputs = Inputs(method, data, motion=motion)
    self.pairs = {
      name: MomentumPair(
        functools.partial(self.build, modality=name),
        momentum=method.momentum,
        regroup=method.key_regroup,
      )
      for name in (("visual", "motion") if motion else ("visual",))
    }
    self.clips_per_example = 2 * len(self.pairs)
    self.weights = {name: method[k] for name, k in _WEIGHTS.items() if method[k]}
    self.metrics = modist_metrics.collection(self.weights, self.pairs)
    motion, channels = method.motion_frames, 2 if method.motion == "flow" else 1
    self._check_pretext(
      video=(2, method.frames, *data.canvas, 3),
      extent=(2, 2),
      motion=(2, motion, *data.canvas, channels),
      motion_pairs=(2, motion, 2, *data.canvas, 3),
    )

  @staticmethod
  def sized(config, batch_size, section="method"):
    size = -(-config[section].queue_size // batch_size) * batch_size
    return {f"{section}.queue_size": size}

  def sampler(self, split, source=None):
    """Two clips of a video and two of its motion; without motion if no loss has it."""
    data, flow = self.config.data, self.prepared_motion()
    if flow is not None:
      flow = self._open_motion(split, source, **flow)
    return Distill(
      motion_frames=self.settings.motion_frames if "motion" in self.pairs else 0,
      motion_interval=data.motion_interval,
      flow=flow,
      flow_interval=data.flow_interval,
      threshold=data.motion_threshold,
      edge_scale=data.edge_scale,
      synchronised=data.synchronised,
      **self._clip,
    )

  def prepared_motion(self):
    data = self.config.data
    kind = dict(store=self.settings.motion, interval=data.flow_interval)
    kind |= dict(short_side=data.flow_short_side)
    return kind if data.flow and "motion" in self.pairs else None

  def build(self, rngs, modality="visual"):
    method, model = self.settings, self.config.model
    of_motion = dict(name=model.get("motion_name"), width=model.get("motion_width"))
    of_motion |= dict(in_channels=CHANNELS[method.motion])
    return Embedder(
      encoder_of(model, rngs, **of_motion if modality == "motion" else {}),
      rngs=rngs,
      outputs=method.embedding,
      layers=method.projection_layers,
      hidden=method.projection_hidden or None,
      norm=method.projection_norm,
      bn_groups=model.bn_groups,
    )

  def init(self, key):
    params, aux = {}, {"queues": {}}
    for index, (name, pair) in enumerate(self.pairs.items()):
      pair_key, queue_key = jax.random.split(jax.random.fold_in(key, index))
      params[name], aux[name] = pair.init(pair_key)
      aux["queues"][name] = contrast.make_queue(
        queue_key,
        size=self.settings.queue_size,
        batch_size=self._slot,
        dim=self.settings.embedding,
      )
    return params, aux

  def pretext(self, batch, key, step):
    """The clips of `modist_inputs.Inputs`, by name."""
    return self._inputs(key, batch)

  def loss(self, params, aux, batch, key, step):
    clips = self._inputs(key, batch)
    embedded, aux = self._embed(params, aux, clips, train=True)
    outputs = self.outputs(embedded, aux["queues"], batch["index"], batch)
    queues = {
      name: self._enqueue(queue, embedded.key[name], batch)
      for name, queue in aux["queues"].items()
    }
    loss = masked_mean(outputs["loss"], outputs["mask"])
    return loss, ({**aux, "queues": queues}, outputs)

  def objectives(self, q: dict, k: dict, queues: dict, ids) -> dict:
    """The InfoNCE objectives that have a weight: {name: contrast.Contrast}.

    Args:
      q, k: queries and keys [B, dim] of unit length, by modality.
      queues: of negatives n, by modality, as they are before these keys enter.
      ids: int32 [B], videos of the queries, whose keys are no negatives of theirs.
    """
    temperature = self.settings.temperature

    @functools.cache  # two objectives may share them
    def scored(query, negatives):
      queue = queues[negatives]
      return contrast.score_negatives(q[query], queue, ids, temperature=temperature)

    def info_nce(query, key):
      n = scored(query, dict(query=query, key=key)[self.settings.cross_negatives])
      return contrast.info_nce(q[query], k[key], n, temperature=temperature)

    found = {}
    if self.settings.loss_visual:
      found["visual"] = info_nce("visual", "visual")  # L_v, Eq. 1
    if self.settings.loss_motion:
      found["motion"] = info_nce("motion", "motion")  # L_m
    if self.settings.loss_cross:  # the two of L_mv, Eq. 2
      found["visual_to_motion"] = info_nce("visual", "motion")
      found["motion_to_visual"] = info_nce("motion", "visual")
    return found

  def after_update(self, params, aux, step):
    """Moves the momentum copies, so that the next keys come from the moved ones."""
    moved = {
      name: pair.follow(params[name], aux[name]) for name, pair in self.pairs.items()
    }
    return {**aux, **moved}

  def predict(self, params, aux, batch):
    """Contrast of held-out clips with the queues, which stay as they are.

    Clips are cropped and augmented as in training; a row's draws follow from its index.
    The queues hold training videos, whose numbers are not those of held-out ones, so no
    negative is left out.
    """
    clips = self._inputs.heldout(batch)
    embedded, _ = self._embed(params, aux, clips, train=False)
    ids = jnp.full_like(batch["index"], contrast.EMPTY)
    return self.outputs(embedded, aux["queues"], ids, batch)

  def aux_shardings(self, mesh: Mesh):
    """Queues are split over the devices, if these divide the rows of a step."""
    everywhere = sharding.replicated(mesh)
    shares = self._slot % mesh.size == 0
    queue = contrast.queue_shardings(mesh) if shares else everywhere
    queues = dict.fromkeys(self.pairs, queue)
    return dict.fromkeys(self.pairs, everywhere) | {"queues": queues}

  def check_training(self, mesh: Mesh) -> None:
    what = "train.batch_size / train.accumulate_steps"
    devices = f"{mesh.size} devices, which share the queues"
    sharding.check_batch_size(what, self._slot, mesh.size, devices)

  def network(self, params, aux, *, train=False):
    return self.pairs["visual"].network(params["visual"], aux["visual"])

  def with_encoder(self, params, aux, encoder):
    own = self.pairs["visual"].with_encoder(params["visual"], aux["visual"], encoder)
    return {**params, "visual": own[0]}, {**aux, "visual": own[1]}

  def save_figures(self, directory, batch, key):
    """Draws query and key, RGB and motion, of the first videos."""
    from motion_jax.visualize import modist as pictures

    method, clips = self.settings, self._inputs.first(key, batch, 3)
    options = dict(kind=method.motion, mean=method.mean, std=method.std)
    pictures.save_pretext(directory / "pretext", jax.device_get(clips), **options)

  def _embed(self, params, aux, clips, *, train):
    """Embeddings by modality, and aux with the statistics of this batch."""
    found, aux = modist_metrics.Embedded({}, {}, {}), dict(aux)
    for name, pair in self.pairs.items():
      with jax.named_scope(f"{name}_query"):
        (found.query[name], found.features[name]), aux[name] = pair.embed_queries(
          params[name], aux[name], clips[f"{name}_query"], train=train
        )
      with jax.named_scope(f"{name}_key"):
        found.key[name], aux[name] = pair.embed_keys(
          aux[name], clips[f"{name}_key"], train=train
        )
    return found, aux

  def outputs(self, embedded, queues, ids, batch):
    """What `metrics` needs, with the loss of Eq. 3; arguments as in `objectives`."""
    with jax.named_scope("contrast"):
      found = self.objectives(embedded.query, embedded.key, queues, ids)
      total = sum(self.weights[name] * term.loss for name, term in found.items())
      return modist_metrics.outputs(total, found, embedded, queues["visual"], batch)

  def _enqueue(self, queue, key, batch):
    """Rows that could not be decoded leave what they would overwrite in its place."""
    valid = batch["valid"]
    key = jnp.where(valid[:, None], key, queue.keys[queue.cursor])
    ids = jnp.where(valid, batch["index"], queue.ids[queue.cursor])
    return contrast.enqueue(queue, key, ids)
