"""MoSI: classify the speed and direction of a crop sliding over a still image.

Huang et al., Self-supervised Motion Learning from Static Images, CVPR 2021.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics
from flax import nnx

from motion_jax.config import UserError
from motion_jax.data.clips import SourceFrame
from motion_jax.methods.base import Method, jitter_of, masked_mean
from motion_jax.models import encoder_of
from motion_jax.models.heads import Classifier, Headed
from motion_jax.ops import pseudo_motion


@flax.struct.dataclass
class Metrics(metrics.Collection):
  """Mean cross entropy and accuracy over the pseudo-motion clips."""

  loss: metrics.Average.from_output("loss")
  pretext_accuracy: metrics.Average.from_output("correct")


class Mosi(Method):
  """The pretext task of a config with `method.name = 'mosi'`.

  Args:
    config, settings: see `Method`.
    side: in pixels, of the square images that another method makes its sources of;
      None: they are those of `sampler`.
  """

  metrics = Metrics

  def __init__(self, config, settings=None, *, side: int | None = None):
    super().__init__(config, settings)
    method, data = self.settings, config.data
    if not method.decoupled and method.axes != "xy":
      raise UserError(
        f"method.decoupled=False, the joint grid, needs method.axes='xy', found "
        f"{method.axes!r}: a single axis has only the decoupled pool"
      )
    if method.frames < 2:
      raise UserError(f"method.frames={method.frames}: a moving clip needs 2 or more")
    canvas = tuple(data.canvas) if side is None else (side, side)
    if min(*canvas, data.short_side if side is None else side) <= method.size:
      raise UserError(
        f"the crop of method.size={method.size} pixels has no room to move in "
        f"data.short_side={data.short_side}, data.canvas={canvas}; "
        f"the paper's ratio is 320 to 112: set data.short_side and both sides of "
        f"data.canvas to {round(method.size * 320 / 112)} or more"
      )
    self.pool = pool = pseudo_motion.label_pool(
      method.speeds,
      axes=method.axes,
      static=method.static,
      decoupled=method.decoupled,
    )
    self.clips_per_example = len(pool.speeds)
    moves = pool.speeds / method.speeds
    self._shown = dict(moves=moves, mean=method.mean, std=method.std)
    if method.labels == "joint":
      self._labels, self._classes = pool.joint[:, None], (pool.num_classes,)
      self.chance = {"pretext_accuracy": 1 / pool.num_classes}
    else:
      self._labels = np.stack([pool.separate_x, pool.separate_y], axis=1)
      self._classes = (2 * pool.steps + 1,) * 2
    at_rest = self._labels[(pool.speeds == 0).all(1)]
    self.still = tuple(at_rest[0].tolist()) if len(at_rest) else None
    try:
      pseudo_motion.check_ranges(method.mask_ratio, method.distance_jitter, pool)
    except ValueError as error:  # names the setting
      raise UserError(f"method.{error}") from error
    self._check_pretext(image=(*canvas, 3))

  def sampler(self, split, source=None):
    """One random frame of a video (section 4.1)."""
    data = self.config.data
    return SourceFrame(data.short_side, canvas=tuple(data.canvas))

  def build(self, rngs):
    """An encoder and one linear head per label (one, or one per axis)."""
    encoder = encoder_of(self.config.model, rngs)
    options = dict(dropout=self.settings.dropout, rngs=rngs)
    return Headed(
      encoder, [Classifier(encoder.features, n, **options) for n in self._classes]
    )

  def heads(self, network):
    return list(network.heads)

  def pretext(self, batch, key, step):
    draw_key, _ = jax.random.split(key)
    return self._clips(batch, self._draw(draw_key, batch, step=step))

  def loss(self, params, aux, batch, key, step):
    clips, labels = self.pretext(batch, key, step)
    _, dropout_key = jax.random.split(key)
    rngs = nnx.Rngs(dropout=dropout_key)
    logits, aux = self.call(params, aux, clips, rngs, train=True)
    outputs = self._outputs(logits, labels, batch["valid"])
    return masked_mean(outputs["loss"], outputs["mask"]), (aux, outputs)

  def predict(self, params, aux, batch):
    """Full difficulty, centred trajectories; a row's draws follow from its index."""
    clips, labels = self._heldout_clips(batch)
    logits, _ = self.call(params, aux, clips, train=False)
    return self._outputs(logits, labels, batch["valid"])

  def save_figures(self, directory, batch, key):
    """Draws every label's clip of the first source image."""
    from motion_jax.visualize import mosi as pictures

    one = {name: array[:1] for name, array in batch.items()}
    draws = self._draw(jax.random.split(key)[0], one, step=0)
    caption = pictures.step_text(1, self.settings.curriculum_steps, *self._ease(0))
    clips, boxes = self._clips(one, draws)[0], draws.box[0]
    pictures.save_pretext(directory, clips, boxes, caption=caption, **self._shown)

  def save_results(self, directory, params, aux, batch):
    """Draws the clips of the first held-out image, true and predicted motion."""
    from motion_jax.visualize import mosi as pictures

    first = int(np.argmax(batch["valid"]))  # the others cannot be decoded
    clips, labels = self._heldout_clips({k: x[first:][:1] for k, x in batch.items()})
    logits = nnx.jit(lambda network, clips: network(clips))
    logits = logits(self.network(params, aux), clips)
    found = jnp.stack([head.argmax(-1) for head in logits], axis=-1)
    chance = self.chance.get("pretext_accuracy")
    shown = dict(self._shown, chance=chance)
    pictures.save_predictions(directory, clips, labels, found, **shown)

  def _heldout_clips(self, batch):
    """What a row gives depends on nothing but the row."""
    key, rows = jax.random.key(0), batch["index"]
    return self._clips(batch, self._draw(key, batch, train=False, rows=rows))

  def _ease(self, step):
    """Difficulty, and range of the mask's ratio, which is (1, 1) where that is 0.

    A curriculum starts there, everything moves, and rises linearly to the paper's, 1.
    """
    steps = self.settings.curriculum_steps
    full = step is None or not steps
    ease = jnp.ones(()) if full else jnp.minimum(step / steps, 1.0)
    return ease, tuple(1.0 + (bound - 1.0) * ease for bound in self.settings.mask_ratio)

  def _draw(self, key, batch, *, step=None, train=True, rows=None):
    """All random choices; `step` None is the paper's full difficulty."""
    method, (ease, mask_ratio) = self.settings, self._ease(step)
    with jax.named_scope("pseudo_motion"):
      return pseudo_motion.draw(
        key,
        batch["extent"],
        self.pool,
        rows=rows,
        frames=method.frames,
        size=method.size,
        mask_ratio=mask_ratio,
        distance_jitter=tuple(method.distance_jitter),
        jitter=dict(jitter_of(method), per_frame=method.jitter_per_frame),
        jitter_strength=ease,
        flip=method.flip,
        compat_flip=method.compat_flip and train,
        train=train,
      )

  def _clips(self, batch, draws):
    """Pseudo-motion clips [B*P, T, S, S, C] and labels [B*P, heads] of a batch.

    All clips of an image follow one another, so a batch split over devices keeps
    them on one device (same-batch training, section 3.3 of the paper).
    """
    method = self.settings
    with jax.named_scope("pseudo_motion"):
      clips = pseudo_motion.render(
        batch["image"],
        batch["extent"],
        draws,
        size=method.size,
        mean=jnp.asarray(method.mean),
        std=jnp.asarray(method.std),
      )
    labels = jnp.tile(jnp.asarray(self._labels), (len(clips), 1))
    return clips.reshape(-1, *clips.shape[2:]), labels

  def _outputs(self, logits, labels, valid):
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    losses = [cross_entropy(head, labels[:, i]) for i, head in enumerate(logits)]
    hits = [head.argmax(-1) == labels[:, i] for i, head in enumerate(logits)]
    return {
      "loss": sum(losses),
      "correct": jnp.all(jnp.stack(hits), axis=0).astype(jnp.float32),
      "mask": jnp.repeat(valid, self.clips_per_example),
    }
