"""MoDist: contrast RGB clips and motion clips, with momentum keys and two queues.

Xiao, Tighe, Modolo, MoDist: Motion Distillation for Self-supervised Video
Representation Learning, 2021.
"""

import logging
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from motion_jax.config import UserError, choose
from motion_jax.data.motion import Distill
from motion_jax.methods import modist_metrics
from motion_jax.methods.base import Method, first_rows, masked_mean
from motion_jax.methods.modist_inputs import Inputs, as_rows
from motion_jax.methods.momentum import Embedder, MomentumPair
from motion_jax.models import encoder_of
from motion_jax.ops import contrast
from motion_jax.ops.draws import draw_by_row
from motion_jax.ops.motion_inputs import CHANNELS
from motion_jax.scale import sharding

logger = logging.getLogger("motion_jax")

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
    choose("method.motion", method.motion, (*CHANNELS,))
    if not method.loss_visual + method.loss_cross:
      raise UserError(
        "the visual network must learn: set method.loss_visual or loss_cross above 0"
      )
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
    weights = {  # of Eq. 3; 1 in the paper
      "visual": method.loss_visual,
      "motion": method.loss_motion,
      "visual_to_motion": method.loss_cross,
      "motion_to_visual": method.loss_cross,
    }
    self.weights = {name: weight for name, weight in weights.items() if weight}
    rgb_only = [*self.weights] == ["visual"]
    self.pairs = {
      name: MomentumPair(
        partial(self.build, modality=name),
        momentum=method.momentum,
        regroup=method.key_regroup,
      )
      for name in (("visual",) if rgb_only else ("visual", "motion"))
    }
    self.clips_per_example = 2 * len(self.pairs)
    self.metrics = modist_metrics.collection(self.weights, self.pairs)
    self._inputs = Inputs(method, data)
    shapes = dict(video=(2, method.frames, *data.canvas, 3), extent=(2, 2))
    motion, channels = (2, method.motion_frames), 2 if method.motion == "flow" else 1
    if data.flow and not rgb_only:
      shapes["motion"] = (*motion, *data.canvas, channels)
    elif not rgb_only:
      shapes["motion_pairs"] = (*motion, 2, *data.canvas, 3)
    self._check_pretext(**shapes)

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
    options = {}
    if modality == "motion":
      options = dict(name=model.motion_name, width=model.motion_width)
      options |= dict(in_channels=CHANNELS[method.motion])
    return Embedder(
      encoder_of(model, rngs, **options),
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
    """The clips of `modist_inputs.Inputs.render`, by name."""
    rows = as_rows(batch)
    return self._inputs.render(rows, self._inputs.draw(key, rows["extent"]))

  def loss(self, params, aux, batch, key, step):
    clips = self.pretext(batch, key, step)
    q, k, features, aux = self._embed(params, aux, clips, train=True)
    outputs = self.outputs(q, k, features, aux["queues"], batch["index"], batch)
    queues = {  # after the loss: no key is a negative of its own step
      name: contrast.enqueue(queue, k[name], batch["index"], batch["valid"])
      for name, queue in aux["queues"].items()
    }
    loss = masked_mean(outputs["loss"], outputs["mask"])
    return loss, ({**aux, "queues": queues}, outputs)

  def objectives(self, q, k, queues, ids, valid):
    """Eq. 1 to 3: the loss of every video [B], and its terms by name.

    Args:
      q, k: queries and keys [B, dim] of unit length, by modality.
      queues: of negatives n, by modality, as they are before these keys enter.
      ids: int32 [B], videos of the queries, whose keys are no negatives of theirs.
      valid: bool [B], rows that could be decoded.

    Returns:
      The loss, and a contrast.Contrast for each term that has a weight.
    """
    method = self.settings

    @cache  # two terms may share them
    def scored(query, queue):
      return contrast.score_negatives(
        q[query], queues[queue], ids, temperature=method.temperature
      )

    def info_nce(query, key):  # IN(q, k, n)
      n = scored(query, query if method.cross_negatives == "query" else key)
      return contrast.info_nce(
        q[query], k[key], n, valid, temperature=method.temperature
      )

    terms = {}
    if method.loss_visual:
      terms["visual"] = info_nce("visual", "visual")  # L_v, Eq. 1
    if method.loss_motion:
      terms["motion"] = info_nce("motion", "motion")  # L_m
    if method.loss_cross:  # the two of L_mv, Eq. 2
      terms["visual_to_motion"] = info_nce("visual", "motion")
      terms["motion_to_visual"] = info_nce("motion", "visual")
    loss = sum(self.weights[name] * term.loss for name, term in terms.items())  # Eq. 3
    return loss, terms

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
    rows = as_rows(batch)
    numbers = (2 * batch["index"][:, None] + jnp.arange(2)).ravel()
    draws = draw_by_row(self._inputs.draw, jax.random.key(0), numbers, rows["extent"])
    clips = self._inputs.render(rows, draws)
    q, k, features, _ = self._embed(params, aux, clips, train=False)
    ids = jnp.full_like(batch["index"], contrast.EMPTY)
    return self.outputs(q, k, features, aux["queues"], ids, batch)

  def outputs(self, q, k, features, queues, ids, batch):
    """What `metrics` reads; arguments as in `objectives`."""
    with jax.named_scope("contrast"):
      loss, terms = self.objectives(q, k, queues, ids, batch["valid"])
      found = modist_metrics.outputs(terms, q, features, queues["visual"], batch)
    return {"loss": loss, **found}

  def aux_shardings(self, mesh: Mesh):
    """Queues are split over the devices, if these divide the rows of a step."""
    queue = contrast.queue_shardings(mesh, self._slot)
    places = dict.fromkeys(self.pairs, sharding.replicated(mesh))
    return places | {"queues": dict.fromkeys(self.pairs, queue)}

  def check_training(self, mesh: Mesh) -> None:
    what = "train.batch_size / train.accumulate_steps"
    devices = f"{mesh.size} devices, which share the queues"
    sharding.check_batch_size(what, self._slot, mesh.size, devices)
    if self.settings.key_regroup and self.config.model.bn_groups == 1:
      logger.warning(
        "method.key_regroup has no effect with model.bn_groups=1: keys see their "
        "queries' batch statistics, by which they can be told; set 2 groups or more"
      )

  def network(self, params, aux, *, train=False):
    return self.pairs["visual"].network(params["visual"], aux["visual"])

  def with_encoder(self, params, aux, encoder):
    own = self.pairs["visual"].with_encoder(params["visual"], aux["visual"], encoder)
    return {**params, "visual": own[0]}, {**aux, "visual": own[1]}

  def save_figures(self, directory, batch, key):
    """Draws query and key, RGB and motion, of the first videos."""
    from motion_jax.visualize import modist as pictures

    method, rows = self.settings, as_rows(batch)
    draws = jax.jit(self._inputs.draw)(key, rows["extent"])
    clips = jax.jit(self._inputs.render)(*first_rows(2 * 3, rows, draws))
    options = dict(kind=method.motion, mean=method.mean, std=method.std)
    pictures.save_pretext(directory / "pretext", jax.device_get(clips), **options)

  def _embed(self, params, aux, clips, *, train):
    """q, k and the queries' features by modality, and aux with the new statistics."""
    q, k, features, aux = {}, {}, {}, dict(aux)
    for name, pair in self.pairs.items():
      with jax.named_scope(f"{name}_query"):
        (q[name], features[name]), aux[name] = pair.embed_queries(
          params[name], aux[name], clips[f"{name}_query"], train=train
        )
      with jax.named_scope(f"{name}_key"):
        k[name], aux[name] = pair.embed_keys(
          aux[name], clips[f"{name}_key"], train=train
        )
    return q, k, features, aux
