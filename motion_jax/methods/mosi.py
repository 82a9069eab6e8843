"""MoSI: classify the speed and direction of a crop sliding over a still image.

Huang et al., Self-supervised Motion Learning from Static Images, CVPR 2021.
"""

import pathlib
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.methods.base import Method
from motion_jax.methods.settings import check_settings
from motion_jax.models import build_model
from motion_jax.models.common import call, split
from motion_jax.models.heads import Classifier
from motion_jax.models.precision import compute_options
from motion_jax.ops import pseudo_motion


@flax.struct.dataclass
class Metrics(metrics.Collection):
  """Mean cross entropy and accuracy over the pseudo-motion clips."""

  loss: metrics.Average.from_output("loss")
  pretext_accuracy: metrics.Average.from_output("correct")


class Network(nnx.Module):
  """An encoder and one linear head per label (one, or one per axis)."""

  def __init__(self, encoder: nnx.Module, classes: tuple[int, ...], dropout, *, rngs):
    self.encoder = encoder
    self.heads = nnx.List(
      Classifier(encoder.features, count, dropout=dropout, rngs=rngs)
      for count in classes
    )

  def __call__(self, video: jax.Array, rngs: nnx.Rngs | None = None):
    """[B, T, H, W, C] normalised video -> logits, a list of [B, classes] float32."""
    features = self.encoder(video)
    return [head(features, rngs=rngs) for head in self.heads]


class Mosi(Method):
  """The pretext task of a config with `method.name = 'mosi'`.

  Args:
    config: a whole config; its `method` and `model` sections are read.

  Raises:
    UserError: for settings that cannot work together.
  """

  metrics = Metrics

  def __init__(self, config: ConfigDict):
    check_settings(config)
    method = self._config = config.method
    choose("method.axes", method.axes, ("xy", "x", "y"))
    choose("method.labels", method.labels, ("joint", "separate"))
    if not method.decoupled and method.axes != "xy":
      raise UserError(
        f"method.decoupled=False, the joint grid, needs method.axes='xy', found "
        f"{method.axes!r}: a single axis has only the decoupled pool"
      )
    if method.frames < 2:
      raise UserError(f"method.frames={method.frames}: a moving clip needs 2 or more")
    self.pool = pseudo_motion.label_pool(
      method.speeds,
      axes=method.axes,
      static=method.static,
      decoupled=method.decoupled,
    )
    self.clips_per_example = len(self.pool.speeds)
    height, width = config.data.canvas
    if min(height, width, config.data.short_side) <= method.size:
      raise UserError(
        f"the crop of method.size={method.size} pixels has no room to move in "
        f"data.short_side={config.data.short_side}, data.canvas={(height, width)}; "
        f"the paper's ratio is 320 to 112: set data.short_side and both sides of "
        f"data.canvas to {round(method.size * 320 / 112)} or more"
      )
    self._labels, classes = _heads(self.pool, method.labels)
    self._build = partial(_build, config.model, classes, method.dropout)
    self._graphdef = nnx.graphdef(nnx.eval_shape(lambda: self._build(nnx.Rngs(0))))
    self._check_generator((height, width))

  def init(self, key):
    _, params, stats = split(self._build(nnx.Rngs(key)))
    return params, stats

  def loss(self, params, aux, batch, key, step):
    clips, labels = self.pretext(batch, key, step)
    _, dropout_key = jax.random.split(key)
    with jax.named_scope("network"):
      rngs = nnx.Rngs(dropout=dropout_key)
      logits, aux = call(self._graphdef, params, aux, clips, rngs, train=True)
    outputs = self._outputs(logits, labels, batch["valid"])
    return _masked_mean(outputs["loss"], outputs["mask"]), (aux, outputs)

  def predict(self, params, aux, batch):
    """Full difficulty, centred trajectories; a row's draws follow from its index."""
    clips, labels = self._heldout_clips(batch)
    logits, _ = call(self._graphdef, params, aux, clips, train=False)
    return self._outputs(logits, labels, batch["valid"])

  def pretext(self, batch, key, step):
    generate_key, _ = jax.random.split(key)
    return self._make_clips(generate_key, batch, step=step, train=True)

  def encoder(self, params, aux):
    return self._network(params, aux).encoder

  def with_encoder(self, params, aux, encoder):
    network = self._network(params, aux)
    nnx.update(network.encoder, nnx.state(encoder))
    return split(network)[1:]

  def classifiers(self, params, aux):
    return list(self._network(params, aux).heads)

  def with_classifiers(self, params, aux, classifiers):
    network = self._network(params, aux)
    for own, other in zip(network.heads, classifiers, strict=True):
      nnx.update(own, nnx.state(other))
    return split(network)[1:]

  def save_figures(self, directory: pathlib.Path, batch, key):
    """Writes every label's clip of the first source image, as a PNG and a GIF."""
    from motion_jax.visualize import clips as clip_figures

    one = {name: array[:1] for name, array in batch.items()}
    draws = self._draw(jax.random.split(key)[0], one, step=0, train=True)
    clips = jax.device_get(self._render(one, draws)[0])
    speeds = self.pool.speeds / self._config.speeds
    # Titles and arrows are the window's motion; what is seen in it moves against them.
    titles = [f"{label}: {_motion_text(*speed)}" for label, speed in enumerate(speeds)]
    normalization = dict(mean=self._config.mean, std=self._config.std)
    directory.mkdir(parents=True, exist_ok=True)
    clip_figures.save_clip_grid(
      directory / "pretext.png",
      clips,
      titles=titles,
      arrows=speeds,
      boxes=jax.device_get(draws.box[0]),
      caption=self._caption(step=0),
      **normalization,
    )
    clip_figures.save_gif(
      directory / "pretext.gif", clips, arrows=speeds, **normalization
    )

  def save_results(self, directory: pathlib.Path, params, aux, batch):
    """Writes the clips of the first held-out image, true and predicted motion."""
    from motion_jax.visualize import clips as clip_figures

    first = int(np.argmax(batch["valid"]))  # the others cannot be decoded
    one = {name: array[first : first + 1] for name, array in batch.items()}
    network = nnx.jit(lambda network, clips: [x.argmax(-1) for x in network(clips)])
    clips, labels = self._heldout_clips(one)
    found = jnp.stack(network(self._network(params, aux), clips), axis=-1)
    speeds = self.pool.speeds / self._config.speeds
    # Of two heads the motion along x and along y, which need not be one of the pool's.
    texts = {
      tuple(label): _motion_text(*speed)
      for label, speed in zip(self._labels, speeds, strict=True)
    }
    titles = [
      f"{texts[tuple(true)]}\nfound: {texts.get(tuple(guess), 'none of these')}"
      for true, guess in zip(*jax.device_get((labels, found)), strict=True)
    ]
    directory.mkdir(parents=True, exist_ok=True)
    clip_figures.save_clip_grid(
      directory / "predictions.png",
      jax.device_get(clips),
      titles=titles,
      arrows=speeds,
      mean=self._config.mean,
      std=self._config.std,
    )

  def _caption(self, step):
    """The step, counted from 1, and how hard a curriculum makes it."""
    method, text = self._config, f"step {step + 1}"
    if not method.curriculum_steps:
      return text
    ease = float(_difficulty(step, method.curriculum_steps))
    low, high = (float(ratio) for ratio in _eased_ratio(method.mask_ratio, ease))
    return (
      f"{text} of a curriculum over {method.curriculum_steps}: difficulty {ease:.0%}, "
      f"mask {low:.2f} to {high:.2f}"
    )

  def _network(self, params, aux):
    network = nnx.merge(self._graphdef, params, aux)
    network.eval()
    return network

  def _heldout_clips(self, batch):
    """As `_make_clips`: what a row gives depends on nothing but the row."""
    key, rows = jax.random.key(0), batch["index"]
    return self._make_clips(key, batch, step=None, train=False, rows=rows)

  def _make_clips(self, key, batch, *, step, train, rows=None):
    """Pseudo-motion clips [B*P, T, S, S, C] and labels [B*P, heads] of a batch.

    All clips of an image follow one another, so a batch split over devices keeps
    them on one device (same-batch training, section 3.3 of the paper).
    """
    with jax.named_scope("pseudo_motion"):
      draws = self._draw(key, batch, step=step, train=train, rows=rows)
      clips = self._render(batch, draws)
    labels = jnp.tile(jnp.asarray(self._labels), (len(clips), 1))
    return clips.reshape(-1, *clips.shape[2:]), labels

  def _check_generator(self, canvas):
    """Lets the generator refuse settings now instead of in the first step."""
    method = self._config
    try:
      pseudo_motion.check_ranges(method.mask_ratio, method.distance_jitter, self.pool)
    except ValueError as error:  # names the setting
      raise UserError(f"method.{error}") from error
    batch = {
      "image": jax.ShapeDtypeStruct((1, *canvas, 3), jnp.uint8),
      "extent": jax.ShapeDtypeStruct((1, 2), jnp.int32),
    }
    jax.eval_shape(partial(self.pretext, key=jax.random.key(0), step=0), batch)

  def _draw(self, key, batch, *, step, train, rows=None):
    """All random choices; `step` None is the paper's full difficulty."""
    method = self._config
    ease = jnp.ones(()) if step is None else _difficulty(step, method.curriculum_steps)
    return pseudo_motion.draw(
      key,
      batch["extent"],
      self.pool,
      rows=rows,
      frames=method.frames,
      size=method.size,
      mask_ratio=_eased_ratio(method.mask_ratio, ease),
      distance_jitter=tuple(method.distance_jitter),
      jitter=dict(
        brightness=method.brightness,
        contrast=method.contrast,
        saturation=method.saturation,
        hue=method.hue,
        grayscale=method.grayscale,
        per_frame=method.jitter_per_frame,
      ),
      jitter_strength=ease,
      flip=method.flip,
      compat_flip=method.compat_flip and train,
      train=train,
    )

  def _render(self, batch, draws):
    """Clips [B, P, T, S, S, C], normalised."""
    return pseudo_motion.render(
      batch["image"],
      batch["extent"],
      draws,
      size=self._config.size,
      mean=jnp.asarray(self._config.mean),
      std=jnp.asarray(self._config.std),
    )

  def _outputs(self, logits, labels, valid):
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    losses = [cross_entropy(head, labels[:, i]) for i, head in enumerate(logits)]
    hits = [head.argmax(-1) == labels[:, i] for i, head in enumerate(logits)]
    return {
      "loss": sum(losses),
      "correct": jnp.all(jnp.stack(hits), axis=0).astype(jnp.float32),
      "mask": jnp.repeat(valid, self.clips_per_example),
    }


def _build(model: ConfigDict, classes, dropout, rngs):
  encoder = build_model(
    model.name,
    rngs=rngs,
    width=model.width,
    **compute_options(model),
    lowering=model.lowering,
    remat=model.remat,
    bn_groups=model.bn_groups,
  )
  return Network(encoder, classes, dropout, rngs=rngs)


def _heads(pool, labels):
  """Labels [P, heads] of one source's clips, and the number of classes per head."""
  if labels == "joint":
    return pool.joint[:, None], (pool.num_classes,)
  return np.stack([pool.separate_x, pool.separate_y], axis=1), (2 * pool.steps + 1,) * 2


def _difficulty(step, curriculum_steps):
  """0 at step 0, rising linearly to 1, the paper's setting, at `curriculum_steps`."""
  if not curriculum_steps:
    return jnp.ones(())
  return jnp.minimum(step / curriculum_steps, 1.0)


def _eased_ratio(mask_ratio, ease):
  """The mask ratio range, which a curriculum starts at (1, 1): everything moves."""
  return tuple(1.0 + (bound - 1.0) * ease for bound in mask_ratio)


def _masked_mean(values, mask):
  return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def _motion_text(x, y):
  if not x and not y:
    return "static"
  across = f"{'right' if x > 0 else 'left'} {abs(x):g}" if x else ""
  along = f"{'down' if y > 0 else 'up'} {abs(y):g}" if y else ""
  return " ".join(filter(None, (across, along)))
