"""Supervised training: from scratch, fine-tuning, linear probe, frozen first stages.

Settings of the papers: MoSI (Huang et al., CVPR 2021) section 4.1 and figure 6, MoDist
(Xiao et al., 2021) section 4.1, MAS (Wang et al., CVPR 2019) section 4.1.
"""

import logging

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics
from flax import nnx

from motion_jax.config import UserError
from motion_jax.data.inputs import segments
from motion_jax.methods.base import (
  Method,
  first_rows,
  jitter_of,
  masked_mean,
  matrix_penalty,
)
from motion_jax.models import build_classifier, encoder_of
from motion_jax.models.heads import Classifier, place_features
from motion_jax.models.stages import STAGES
from motion_jax.ops import augment, crops

logger = logging.getLogger("motion_jax")


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
  """The task of a config with `method.name = 'classify'`; see `Method`.

  Beside 'stats', aux has 'frozen', the parameters of frozen stages.
  """

  metrics = Metrics
  headline = ("loss", "clip_top1")
  evaluators = ("video_accuracy",)
  kept = {"frozen": nnx.Param, "stats": nnx.BatchStat}

  def __init__(self, config, settings=None):
    super().__init__(config, settings)
    method, self._eval = self.settings, config.eval
    self._test_side = round(config.eval.crop_ratio * config.data.short_side)
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
    self._check_pretext(video=(method.frames, *config.data.canvas, 3))

  def sampler(self, split, source=None):
    """A clip, or with `method.segments` a frame of each part of a video."""
    if self.settings.get("segments"):
      return segments(self.config, middle=split == "heldout")
    return self._clip_sampler(split)

  def build(self, rngs):
    method, encoder = self.settings, encoder_of(self.config.model, rngs)
    options = dict(dropout=method.dropout, frozen=method.frozen_stages, rngs=rngs)
    return Network(encoder, method.classes, **options)

  def heads(self, network):
    return [network.head]

  def pretext(self, batch, key, step):
    """Augmented clips [B, T, S, S, 3], normalised, and labels [B]."""
    with jax.named_scope("augment"):
      return self._augment(self._draw(key, batch["extent"]), batch), batch["label"]

  def loss(self, params, aux, batch, key, step):
    video, labels = self.pretext(batch, key, step)
    _, dropout_key = jax.random.split(key)
    rngs = nnx.Rngs(dropout=dropout_key)
    logits, aux = self.call(params, aux, video, rngs, train=True)
    outputs = _outputs(jax.nn.log_softmax(logits), labels, batch["valid"])
    loss = masked_mean(outputs["loss"], outputs["mask"])
    # MAS's: of the classifier's matrices alone.
    loss += matrix_penalty(self.settings.head_decay, params["head"])
    return loss, (aux, outputs)

  def predict(self, params, aux, batch):
    """Mean of the softmax over the crops of each clip, and its cross entropy.

    A crop has one softmax, of its mean feature, or with `eval.place_scores` one at each
    place, as in SlowFast's test, which differ where crops are larger than in training.

    Returns:
      loss, top1, mask: [B]; probabilities: [B, classes] float32.
    """
    network = self.network(params, aux)
    extent = batch["extent"]
    if self._eval.crops == 3:
      boxes = crops.three_crops(extent, size=self._test_side)
    else:
      boxes = crops.center_square(extent, ratio=self._eval.crop_ratio)[:, None]
    size = self._eval.size or self.settings.size
    video = self._normalize(
      crops.resize_crops(batch["video"], boxes, size=size, turned=_turned(batch))
    )
    video = video.reshape(-1, *video.shape[2:])
    if self._place_scores:
      probabilities = network.place_probabilities(video, self.settings.size)
    else:
      probabilities = jax.nn.softmax(network(video))
    probabilities = probabilities.reshape(*boxes.shape[:2], -1).mean(1)
    scores = jnp.log(jnp.maximum(probabilities, jnp.finfo(jnp.float32).tiny))
    outputs = _outputs(scores, batch["label"], batch["valid"])
    return {**outputs, "probabilities": probabilities}

  def save_figures(self, directory, batch, key):
    """Draws the training clips of the first examples."""
    from motion_jax.visualize import clips as pictures
    from motion_jax.visualize.canvas import shortened

    names = dict(enumerate(self.settings.class_names))
    draws = jax.jit(self._draw)(key, batch["extent"])
    few, draws = first_rows(9, batch, draws)
    pictures.save_clips(
      directory / "inputs",
      jax.jit(self._augment)(draws, few),
      titles=[
        shortened(names.get(int(label), f"class {label}"), 24) for label in few["label"]
      ],
      caption="Place, size, mirroring and colours are drawn anew each time a clip is "
      "seen: augmentation.",
      mean=self.settings.mean,
      std=self.settings.std,
    )

  def _draw(self, key, extent):
    """Boxes, which clips are mirrored, and colour jitter; `key` is that of `loss`."""
    method = self.settings
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
      **jitter_of(method),
      per_frame=False,
    )
    return boxes, flip, jitter

  def _augment(self, draws, batch):
    """Normalised clips [B, T, S, S, 3]."""
    boxes, flip, jitter = draws
    video = crops.resize_crops(
      batch["video"], boxes, size=self.settings.size, flip=flip, turned=_turned(batch)
    )
    return self._normalize(augment.apply_jitter(video, jitter))

  def _normalize(self, video):
    return augment.normalize(video, self.settings.mean, self.settings.std)


def _turned(batch):
  return crops.is_turned(batch["extent"], batch["video"].shape[2:4])


def _outputs(log_probabilities, labels, valid):
  loss = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
  return {
    "loss": loss,
    "top1": (log_probabilities.argmax(-1) == labels).astype(jnp.float32),
    "mask": valid,
  }
