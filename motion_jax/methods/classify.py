"""Supervised training: from scratch, fine-tuning, linear probe, frozen first stages.

Settings of the papers: MoSI (Huang et al., CVPR 2021) section 4.1 and figure 6, MoDist
(Xiao et al., 2021) section 4.1, MAS (Wang et al., CVPR 2019) section 4.1.
"""

import logging
import pathlib
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.methods.base import Method, first_rows
from motion_jax.methods.settings import check_settings
from motion_jax.models import build_classifier, build_model
from motion_jax.models.heads import Classifier, place_features
from motion_jax.models.precision import compute_options
from motion_jax.ops import augment, crops

logger = logging.getLogger("motion_jax")

STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")


@flax.struct.dataclass
class Metrics(metrics.Collection):
  """Mean cross entropy and accuracy over clips."""

  loss: metrics.Average.from_output("loss")
  clip_top1: metrics.Average.from_output("top1")


class Network(nnx.Module):
  """An encoder and its classifier; the first stages may be frozen.

  Frozen stages get no gradient, and their batch normalisation keeps using and leaves
  alone the running averages, in training too.
  """

  def __init__(self, encoder, classes: int, *, dropout: float, frozen: int, rngs):
    self.encoder = encoder
    options = dict(dropout=dropout, rngs=rngs)
    if frozen == len(STAGES):  # a linear probe, whatever head the paper fine-tunes
      self.head = Classifier(encoder.features, classes, **options)
    else:
      self.head = build_classifier(encoder, classes, **options)
    self.frozen = frozen

  def __call__(self, video: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
    """Maps [B, T, H, W, C] normalised video to [B, classes] float32 logits."""
    if self.frozen:
      stage = STAGES[self.frozen - 1]
      activation = jax.lax.stop_gradient(self.encoder.until(video, stage))
      features = self.encoder.after(activation, stage)
    else:
      features = self.encoder(video)
    return self.head(features, rngs=rngs)

  def place_probabilities(self, video: jax.Array, size: int) -> jax.Array:
    """The softmax at each place of [B, T, H, W, C] video, its mean [B, classes].

    A place has as much around it as a clip of `size` pixels is pooled over.
    """
    clip = jnp.zeros((1, video.shape[1], size, size, video.shape[-1]), video.dtype)
    trained = jax.eval_shape(lambda: self.encoder.until(clip, STAGES[-1]))
    activation = self.encoder.until(video, STAGES[-1])
    features = place_features(activation, trained.shape[2:4])
    return jax.nn.softmax(self.head(features)).mean(1)

  def train(self, **attributes) -> None:
    super().train(**attributes)
    for path in self._frozen_paths():
      part = self.encoder
      for name in path:
        part = part[name] if isinstance(name, int) else getattr(part, name)
      for layer in part if isinstance(part, nnx.List) else (part,):
        layer.eval()

  def is_trained(self, path: tuple, value) -> bool:
    """Tells of an array whether the optimiser changes it; a filter for nnx.split."""
    frozen = {("encoder", *place) for place in self._frozen_paths()}
    return isinstance(value, nnx.Param) and not any(
      path[: len(place)] == place for place in frozen
    )

  def _frozen_paths(self):
    return self.encoder.stage_paths()[: self.frozen]


class Classify(Method):
  """The task of a config with `method.name = 'classify'`.

  Args:
    config: a whole config; its sections method, model, data and eval are read.

  Raises:
    UserError: for settings that cannot work together.
  """

  metrics = Metrics
  clips_per_example = 1
  evaluators = ("video_accuracy",)

  def __init__(self, config: ConfigDict):
    check_settings(config)
    method = self._config = config.method
    self._eval = config.eval
    self._test_side = round(config.eval.crop_ratio * config.data.short_side)
    choose("method.crop", method.crop, ("resized", "plain"))
    if not 0 <= method.frozen_stages <= len(STAGES):
      raise UserError(
        f"method.frozen_stages={method.frozen_stages} must be in 0 (fine-tune all) to "
        f"{len(STAGES)} (linear probe)"
      )
    if method.classes < 2:
      raise UserError(
        f"method.classes={method.classes}: a classifier needs at least two; is every "
        "class in a sub-folder of its own?"
      )
    if config.eval.crops not in (1, 3) or not 0 < config.eval.crop_ratio <= 1:
      raise UserError(
        f"eval.crops={config.eval.crops} must be 1 or 3, eval.crop_ratio="
        f"{config.eval.crop_ratio} in (0, 1]"
      )
    larger = (config.eval.size or method.size) > method.size
    asked = config.eval.place_scores
    self._place_scores = larger and asked
    if asked and not larger:
      logger.warning(
        "eval.place_scores=True has no effect: eval.size is not above method.size"
      )
    if self._place_scores and config.model.name == "c3d":
      raise UserError(
        "eval.place_scores=True needs features that are a mean over places, which "
        "C3D's are not; set it to False"
      )
    self._build = partial(_build, config.model, method)
    network = nnx.eval_shape(lambda: self._build(nnx.Rngs(0)))
    self._graphdef = _split(network)[0]
    self._check_augmentation(tuple(config.data.canvas))

  def init(self, key):
    _, params, aux = _split(self._build(nnx.Rngs(key)))
    return params, aux

  def loss(self, params, aux, batch, key, step):
    video, labels = self.pretext(batch, key, step)
    _, dropout_key = jax.random.split(key)
    with jax.named_scope("network"):
      network = self._merge(params, aux)
      network.train()
      logits = network(video, nnx.Rngs(dropout=dropout_key))
    aux = {**aux, "stats": nnx.as_pure(nnx.state(network, nnx.BatchStat))}
    outputs = _outputs(jax.nn.log_softmax(logits), labels, batch["valid"])
    total = jnp.sum(outputs["loss"] * outputs["mask"])
    mean = total / jnp.maximum(jnp.sum(outputs["mask"]), 1)
    return mean + self._head_penalty(network.head), (aux, outputs)

  def predict(self, params, aux, batch):
    """Mean of the softmax over the crops of each clip, and its cross entropy.

    A crop has one softmax, of its mean feature, or with `eval.place_scores` one at each
    place, as in SlowFast's test, which differ where crops are larger than in training.

    Returns:
      loss, top1, mask: [B]; probabilities: [B, classes] float32.
    """
    network = self._in_evaluation(params, aux)
    extent = batch["extent"]
    if self._eval.crops == 3:
      boxes = crops.three_crops(extent, size=self._test_side)
    else:
      boxes = crops.center_square(extent, ratio=self._eval.crop_ratio)[:, None]
    size = self._eval.size or self._config.size
    video = self._normalize(
      crops.resize_crops(batch["video"], boxes, size=size, turned=_turned(batch))
    )
    video = video.reshape(-1, *video.shape[2:])
    if self._place_scores:
      probabilities = network.place_probabilities(video, self._config.size)
    else:
      probabilities = jax.nn.softmax(network(video))
    probabilities = probabilities.reshape(*boxes.shape[:2], -1).mean(1)
    scores = jnp.log(jnp.maximum(probabilities, jnp.finfo(jnp.float32).tiny))
    outputs = _outputs(scores, batch["label"], batch["valid"])
    return {**outputs, "probabilities": probabilities}

  def pretext(self, batch, key, step):
    """Augmented clips [B, T, S, S, 3], normalised, and labels [B]."""
    with jax.named_scope("augment"):
      return self._augment(self._draw(key, batch["extent"]), batch), batch["label"]

  def encoder(self, params, aux):
    return self._in_evaluation(params, aux).encoder

  def classifiers(self, params, aux):
    return [self._in_evaluation(params, aux).head]

  def with_encoder(self, params, aux, encoder):
    network = self._merge(params, aux)
    nnx.update(network.encoder, nnx.state(encoder))
    return _split(network)[1:]

  def save_figures(self, directory: pathlib.Path, batch, key):
    """Writes the training clips of the first examples, as a PNG and a GIF."""
    from motion_jax.visualize import clips as clip_figures

    draws = jax.jit(self._draw)(key, batch["extent"])
    few, draws = first_rows(9, batch, draws)
    video, labels = jax.device_get((jax.jit(self._augment)(draws, few), few["label"]))
    normalization = dict(mean=self._config.mean, std=self._config.std)
    directory.mkdir(parents=True, exist_ok=True)
    titles = [f"class {label}" for label in labels]
    clip_figures.save_clip_grid(
      directory / "inputs.png", video, titles=titles, **normalization
    )
    clip_figures.save_gif(directory / "inputs.gif", video, **normalization)

  def _check_augmentation(self, canvas):
    """Lets the augmentation refuse settings now instead of in the first step."""
    method = self._config
    batch = {
      "video": jax.ShapeDtypeStruct((1, method.frames, *canvas, 3), jnp.uint8),
      "extent": jax.ShapeDtypeStruct((1, 2), jnp.int32),
    }
    jax.eval_shape(
      lambda key, batch: self._augment(self._draw(key, batch["extent"]), batch),
      *(jax.random.key(0), batch),
    )

  def _draw(self, key, extent):
    """Boxes, which clips are mirrored, and colour jitter; `key` is that of `loss`."""
    method = self._config
    keys = jax.random.split(jax.random.split(key)[0], 4)
    if method.crop == "resized":
      boxes = crops.draw_resized_crops(
        keys[0], extent, area=tuple(method.area), aspect=tuple(method.aspect)
      )
    else:
      boxes = crops.draw_crops(keys[0], extent, size=method.size)
    flip = jax.random.bernoulli(keys[1], method.flip, (len(extent),))
    jitter = augment.draw_jitter(
      keys[2],
      (len(extent), method.frames),
      brightness=method.brightness,
      contrast=method.contrast,
      saturation=method.saturation,
      hue=method.hue,
      grayscale=method.grayscale,
      per_frame=False,
    )
    return boxes, flip, jitter

  def _augment(self, draws, batch):
    """Normalised clips [B, T, S, S, 3]."""
    boxes, flip, jitter = draws
    video = crops.resize_crops(
      batch["video"], boxes, size=self._config.size, flip=flip, turned=_turned(batch)
    )
    return self._normalize(augment.apply_jitter(video, jitter))

  def _head_penalty(self, head):
    """Weight decay of the classifier's matrices alone, MAS's."""
    if not self._config.head_decay:
      return 0.0
    kernels = [k for k in jax.tree.leaves(nnx.state(head, nnx.Param)) if k.ndim > 1]
    return 0.5 * self._config.head_decay * sum(jnp.sum(k * k) for k in kernels)

  def _normalize(self, video):
    return augment.normalize(video, self._config.mean, self._config.std)

  def _merge(self, params, aux):
    return nnx.merge(self._graphdef, params, aux["frozen"], aux["stats"])

  def _in_evaluation(self, params, aux):
    network = self._merge(params, aux)
    network.eval()
    return network


def _turned(batch):
  return crops.is_turned(batch["extent"], batch["video"].shape[2:4])


def _build(model: ConfigDict, method: ConfigDict, rngs: nnx.Rngs) -> Network:
  encoder = build_model(
    model.name,
    rngs=rngs,
    width=model.width,
    **compute_options(model),
    lowering=model.lowering,
    remat=model.remat,
    bn_groups=model.bn_groups,
  )
  return Network(
    encoder,
    method.classes,
    dropout=method.dropout,
    frozen=method.frozen_stages,
    rngs=rngs,
  )


def _split(network: Network):
  """Splits into structure, trained arrays, and (frozen arrays, statistics)."""
  graphdef, *trees = nnx.split(network, network.is_trained, nnx.Param, nnx.BatchStat)
  params, frozen, stats = nnx.as_pure(tuple(trees))
  return graphdef, params, {"frozen": frozen, "stats": stats}


def _outputs(log_probabilities, labels, valid):
  loss = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
  return {
    "loss": loss,
    "top1": (log_probabilities.argmax(-1) == labels).astype(jnp.float32),
    "mask": valid,
  }
