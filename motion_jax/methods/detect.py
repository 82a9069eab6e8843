"""Action detection on AVA: the actions of people in boxes (MoDist section 4.4).

The detector is SlowFast's (Feichtenhofer et al., ICCV 2019); see `detector`.
"""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from flax import nnx

from motion_jax.config import UserError
from motion_jax.data.inputs import configured_source, key_frames
from motion_jax.methods.base import Method, first_rows, masked_mean
from motion_jax.methods.detector import STRIDE, Detector
from motion_jax.models import encoder_of, resnet3d
from motion_jax.ops import augment, crops
from motion_jax.ops.draws import integers

_PARTS = {"train": "train", "heldout": "val"}  # as AVA calls them


@flax.struct.dataclass
class Metrics(metrics.Collection):
  """Mean over frames of the binary cross entropy of their people and all actions.

  The gradient is that of the mean over people.
  """

  loss: metrics.Average.from_output("loss")


class Detect(Method):
  """The task of a config with `method.name = 'detect'`; see `Method`."""

  metrics = Metrics
  evaluators = ("frame_map",)

  def __init__(self, config, settings=None):
    super().__init__(config, settings)
    method, canvas = self.settings, tuple(config.data.canvas)
    if config.model.name not in resnet3d.VARIANTS:
      raise UserError(
        f"model.name={config.model.name!r}: detection needs a 3D ResNet, one of "
        f"{', '.join(resnet3d.VARIANTS)}"
      )
    if method.size % STRIDE or any(side % STRIDE for side in canvas):
      raise UserError(
        f"method.size={method.size} and data.canvas={canvas} must be multiples of "
        f"{STRIDE}"
      )
    if not method.size <= method.short_sides[0] <= method.short_sides[1]:
      raise UserError(
        f"method.short_sides={method.short_sides} must rise, and be at least "
        f"method.size={method.size}"
      )

  def sampler(self, split, source=None):
    """The clip around a key frame, with the boxes of people that are annotated."""
    if source is None:
      source = configured_source(self.config.data, split)
    return key_frames(self.config, source, "boxes", _PARTS[split])

  def build(self, rngs):
    encoder = encoder_of(self.config.model, rngs)
    method = self.settings
    return Detector(encoder, method.actions, dropout=method.dropout, rngs=rngs)

  def loss(self, params, aux, batch, key, step):
    video, boxes, person = self.pretext(batch, key, step)
    _, dropout_key = jax.random.split(key)
    rngs = nnx.Rngs(dropout=dropout_key)
    logits, aux = self.call(params, aux, video, boxes, rngs, train=True)
    outputs = _outputs(logits, batch["actions"], person & batch["valid"][:, None])
    return masked_mean(outputs["loss"], outputs.pop("people")), (aux, outputs)

  def predict(self, params, aux, batch):
    """Scores the actions of every person on the whole frames.

    Returns:
      loss, mask: [B], the mean over the people of a frame, and whether there are any;
      probabilities: [B, N, A] float32.
    """
    extent = batch["extent"]
    video = augment.normalize(
      batch["video"].astype(jnp.float32) / 255, self.settings.mean, self.settings.std
    )
    inside = _inside(extent, video.shape[2:4])[:, None, :, :, None]
    boxes = jnp.clip(_pixels(batch), 0, _sides(extent))
    video = jnp.where(inside, video, 0)
    logits, _ = self.call(params, aux, video, boxes, train=False)
    person = batch["person"] & batch["valid"][:, None]
    outputs = _outputs(logits, batch["actions"], person)
    outputs.pop("people")
    return {**outputs, "probabilities": jax.nn.sigmoid(logits)}

  def pretext(self, batch, key, step):
    """Augmented clips, boxes in them, and which people are still there.

    Returns:
      [B, T, S, S, 3] normalised video, [B, N, 4] pixels, [B, N] bool.
    """
    return self._augment(self._draw(key, batch["extent"]), batch)

  def _draw(self, key, extent):
    """Squares [B, 4], which are mirrored [B]; `key` is that of `loss`."""
    method, (augment_key, _) = self.settings, jax.random.split(key)
    side_key, corner_key, flip_key = jax.random.split(augment_key, 3)
    short = extent.min(-1, keepdims=True)
    # Where a square of `size` lies in frames that are resized to a random short side.
    low, high = method.short_sides
    resized = jax.random.uniform(side_key, (len(extent), 1), minval=low, maxval=high)
    side = jnp.round(method.size / resized * short).astype(jnp.int32)
    corner_unit = jax.random.uniform(corner_key, extent.shape)
    corner = integers(corner_unit, 0, extent - side)
    flip = jax.random.bernoulli(flip_key, method.flip, (len(extent),))
    return jnp.concatenate([corner, side, side], -1), flip

  def _augment(self, draws, batch):
    method, (squares, flip) = self.settings, draws
    video = crops.resize_crops(batch["video"], squares, size=method.size, flip=flip)
    boxes = move_boxes(_pixels(batch), squares, size=method.size, flip=flip)
    has_area = (boxes[..., :2] < boxes[..., 2:]).all(-1)
    video = augment.normalize(video, method.mean, method.std)
    return video, boxes, batch["person"] & has_area

  def save_figures(self, directory, batch, key):
    """Draws the key frames of the first training clips, people in their boxes."""
    from motion_jax.visualize import boxes as pictures

    draws = jax.jit(self._draw)(key, batch["extent"])
    few, draws = first_rows(9, batch, draws)
    video, boxes, person = jax.device_get(jax.jit(self._augment)(draws, few))
    pictures.save_boxes(
      directory / "inputs.png",
      video[:, video.shape[1] // 2],
      boxes,
      person,
      jax.device_get(few["actions"]),
      mean=self.settings.mean,
      std=self.settings.std,
    )


def move_boxes(
  boxes: jax.Array, squares: jax.Array, *, size: int, flip: jax.Array
) -> jax.Array:
  """Moves boxes with a crop of their frame, and cuts them off at its border.

  Args:
    boxes: [B, N, 4] float, (x1, y1, x2, y2) in pixels of the frame.
    squares: [B, 4] int, (top, left, height, width), what is cropped.
    size: side in pixels to which it is resized.
    flip: [B] bool, whether left and right are mirrored after that.

  Returns:
    [B, N, 4] float, in pixels of the crop.
  """
  corner = squares[:, None, [1, 0, 1, 0]].astype(jnp.float32)
  sides = squares[:, None, [3, 2, 3, 2]].astype(jnp.float32)
  moved = ((boxes - corner) / sides * size).clip(0, size)
  x1, y1, x2, y2 = jnp.moveaxis(moved, -1, 0)
  mirrored = jnp.stack([size - x2, y1, size - x1, y2], -1)
  return jnp.where(flip[:, None, None], mirrored, moved)


def _pixels(batch):
  """Boxes [B, N, 4] in pixels of what the canvas shows, the middle of the frame."""
  cut = (batch["whole"] - batch["extent"] + 1) // 2
  return batch["boxes"] * _sides(batch["whole"]) - _sides(cut)


def _sides(extent):
  """[B, 1, 4] float32: width, height, width, height."""
  return extent[:, None, [1, 0, 1, 0]].astype(jnp.float32)


def _inside(extent, canvas):
  """[B, H, W] bool: where the canvas shows the frame."""
  rows = jnp.arange(canvas[0])[:, None] < extent[:, 0, None, None]
  return rows & (jnp.arange(canvas[1]) < extent[:, 1, None, None])


def _outputs(logits, actions, person):
  """loss [B] and mask [B] of frames, and how many people are on each."""
  entropy = optax.sigmoid_binary_cross_entropy(logits, actions.astype(jnp.float32))
  people = person.sum(-1)
  loss = jnp.sum(entropy.mean(-1) * person, -1) / jnp.maximum(people, 1)
  return {"loss": loss, "mask": people > 0, "people": people.astype(jnp.float32)}
