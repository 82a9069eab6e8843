"""Action detection on AVA: the actions of people in boxes (MoDist section 4.4).

The detector is SlowFast's (Feichtenhofer et al., ICCV 2019); see `detector`.
"""

import pathlib

import flax.struct
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.methods.base import Method, first_rows
from motion_jax.methods.detector import STRIDE, Detector
from motion_jax.methods.settings import check_settings
from motion_jax.models import build_model, resnet3d
from motion_jax.models.precision import compute_options
from motion_jax.ops import augment, crops
from motion_jax.ops.draws import integers


@flax.struct.dataclass
class Metrics(metrics.Collection):
  """Mean binary cross entropy over people and actions."""

  loss: metrics.Average.from_output("loss")


class Detect(Method):
  """The task of a config with `method.name = 'detect'`.

  Args:
    config: a whole config; its sections method, model and data are read.

  Raises:
    UserError: for settings that cannot work together.
  """

  metrics = Metrics
  clips_per_example = 1
  evaluators = ("frame_map",)

  def __init__(self, config: ConfigDict):
    check_settings(config)
    method, canvas = config.method, tuple(config.data.canvas)
    self._config, self._model = method, config.model
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
    network = nnx.eval_shape(lambda: self._build(nnx.Rngs(0)))
    self._graphdef = _split(network)[0]

  def init(self, key):
    _, params, stats = _split(self._build(nnx.Rngs(key)))
    return params, {"stats": stats}

  def loss(self, params, aux, batch, key, step):
    video, boxes, person = self.pretext(batch, key, step)
    _, dropout_key = jax.random.split(key)
    network = self._merge(params, aux)
    network.train()
    logits = network(video, boxes, nnx.Rngs(dropout=dropout_key))
    outputs = _outputs(logits, batch["actions"], person & batch["valid"][:, None])
    people = outputs.pop("people")
    mean = jnp.sum(outputs["loss"] * people) / jnp.maximum(people.sum(), 1)
    return mean, (
      {**aux, "stats": nnx.as_pure(nnx.state(network, nnx.BatchStat))},
      outputs,
    )

  def predict(self, params, aux, batch):
    """Scores the actions of every person on the whole frames.

    Returns:
      loss, mask: [B], the mean over the people of a frame, and whether there are any;
      probabilities: [B, N, A] float32.
    """
    network = self._merge(params, aux)
    network.eval()
    extent = batch["extent"]
    video = augment.normalize(
      batch["video"].astype(jnp.float32) / 255, self._config.mean, self._config.std
    )
    inside = _inside(extent, video.shape[2:4])[:, None, :, :, None]
    boxes = batch["boxes"] * _sides(extent)
    logits = network(jnp.where(inside, video, 0), boxes)
    outputs = _outputs(
      logits, batch["actions"], batch["person"] & batch["valid"][:, None]
    )
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
    method, (augment_key, _) = self._config, jax.random.split(key)
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
    method, (squares, flip) = self._config, draws
    video = crops.resize_crops(batch["video"], squares, size=method.size, flip=flip)
    boxes = move_boxes(
      batch["boxes"] * _sides(batch["extent"]), squares, size=method.size, flip=flip
    )
    has_area = (boxes[..., :2] < boxes[..., 2:]).all(-1)
    video = augment.normalize(video, method.mean, method.std)
    return video, boxes, batch["person"] & has_area

  def encoder(self, params, aux):
    network = self._merge(params, aux)
    network.eval()
    return network.encoder

  def with_encoder(self, params, aux, encoder):
    network = self._merge(params, aux)
    nnx.update(network.encoder, nnx.state(encoder))
    _, params, stats = _split(network)
    return params, {"stats": stats}

  def save_figures(self, directory: pathlib.Path, batch, key):
    """Writes the key frames of the first training clips, people in their boxes."""
    from motion_jax.visualize.boxes import save_boxes

    draws = jax.jit(self._draw)(key, batch["extent"])
    few, draws = first_rows(9, batch, draws)
    video, boxes, person = jax.device_get(jax.jit(self._augment)(draws, few))
    directory.mkdir(parents=True, exist_ok=True)
    save_boxes(
      directory / "inputs.png",
      video[:, video.shape[1] // 2],
      boxes,
      person,
      jax.device_get(few["actions"]),
      mean=self._config.mean,
      std=self._config.std,
    )

  def _build(self, rngs: nnx.Rngs) -> Detector:
    model, method = self._model, self._config
    encoder = build_model(
      model.name,
      rngs=rngs,
      width=model.width,
      **compute_options(model),
      lowering=model.lowering,
      remat=model.remat,
      bn_groups=model.bn_groups,
    )
    return Detector(encoder, method.actions, dropout=method.dropout, rngs=rngs)

  def _merge(self, params, aux):
    return nnx.merge(self._graphdef, params, aux["stats"])


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


def _split(network: nnx.Module):
  graphdef, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
  return graphdef, *nnx.as_pure((params, stats))
