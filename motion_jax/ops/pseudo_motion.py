"""Pseudo motion from still images: the pretext task of MoSI (Huang et al., CVPR 2021).

Contract: images are uint8 [B, H, W, 3] canvases with pictures of `extent` = (height,
width) at the top left, as in `crops` (upright ones lie turned in a wide canvas); the
host has already scaled their short side. Clips are float32
[B, P, T, size, size, 3], normalised; axis 1 holds the P classes of one image, so that
they stay together in a batch and on a device. `draw` makes all random choices of an
image from `fold_in(key, row)`, so row i depends neither on the other rows nor on the
number of devices, nor, if rows are given numbers, on its place in the batch; `render`
is deterministic.
"""

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from motion_jax.ops import augment, crops, static_mask, trajectory
from motion_jax.ops.draws import row_keys
from motion_jax.ops.label_pool import LabelPool, label_pool


class Draws(NamedTuple):
  """The random choices behind a batch of clips; None switches a stage off.

  Fields:
    flip: bool [B], mirror the source image before cropping.
    window: int32 [B, P, T, 2], (x, y) of the crop's top left corner in the (mirrored)
      picture.
    jitter: augment.JitterFactors of shape [B, P], or None.
    late_flip: bool [B, P], mirror the finished clip but keep its label, or None.
    background: int32 [B, P], the frame shown outside the box, or None.
    box: int32 [B, P, 3], (x, y, side) of the moving box in the clip, or None.
  """

  flip: jax.Array
  window: jax.Array
  jitter: augment.JitterFactors | None
  late_flip: jax.Array | None
  background: jax.Array | None
  box: jax.Array | None


def generate(
  key: jax.Array,
  images: jax.Array,
  *,
  extent: jax.Array | None = None,
  speeds: int = 2,
  axes: str = "xy",
  static: bool = True,
  decoupled: bool = True,
  mean=0.45,
  std=0.225,
  size: int = 112,
  **options,
) -> tuple[jax.Array, jax.Array]:
  """Makes one clip of every motion class from each image.

  Trajectory crop, colour jitter, normalisation, static mask, in this order.

  Args:
    key: PRNG key.
    images: [B, H, W, 3] uint8 canvases.
    extent: [B, 2] int32 (height, width) of the picture in each canvas, see the module;
      None = all.
      The shorter side must be larger than `size`.
    speeds, axes, static, decoupled: the classes, see `label_pool`.
    mean, std: of the normalisation, scalars or one per channel.
    size: side of the clips, smaller than both sides of the canvas.
    **options: see `draw`: frames, mask_ratio, distance_jitter, jitter,
      jitter_strength, flip, compat_flip, train.

  Returns:
    clips: [B, P, T, size, size, 3] float32.
    labels: [B, P] int32.

  Raises:
    ValueError: if images are not uint8 [B, H, W, 3] or too small for the crop.

  >>> images = jnp.zeros((2, 40, 60, 3), jnp.uint8)
  >>> options = dict(speeds=1, axes="x", frames=4, size=32, jitter=None)
  >>> clips, labels = generate(jax.random.key(0), images, **options)
  >>> clips.shape  # left, still, right of each image
  (2, 3, 4, 32, 32, 3)
  >>> labels[0]
  Array([0, 1, 2], dtype=int32)
  """
  if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.uint8:
    raise ValueError(
      f"images must be uint8 [B, H, W, 3], found {images.dtype} {images.shape}"
    )
  batch, height, width, _ = images.shape
  if min(height, width) <= size:
    raise ValueError(
      f"a {size}x{size} crop cannot move in an image of {height}x{width}; "
      f"scale the image's short side to more than {size}, or reduce size"
    )
  if extent is None:
    extent = jnp.tile(jnp.array([height, width], jnp.int32), (batch, 1))
  pool = label_pool(speeds, axes=axes, static=static, decoupled=decoupled)
  draws = draw(key, extent, pool, size=size, **options)
  clips = render(images, extent, draws, size=size, mean=mean, std=std)
  return clips, jnp.tile(pool.joint, (batch, 1))


def draw(
  key: jax.Array,
  extent: jax.Array,
  pool: LabelPool,
  *,
  size: int,
  rows: jax.Array | None = None,
  frames: int = 16,
  mask_ratio: tuple[float, float] | None = (0.3, 0.5),
  distance_jitter: tuple[float, float] = (1.0, 1.0),
  jitter: Mapping | None = MappingProxyType({}),
  jitter_strength: float | jax.Array = 1.0,
  flip: bool = True,
  compat_flip: bool = False,
  train: bool = True,
) -> Draws:
  """Draws everything random about the clips of a batch.

  Args:
    key: PRNG key; row i uses `fold_in(key, i)`.
    extent: [B, 2] int32, (height, width) of each picture.
    pool: the motion classes.
    size: side of the clips in pixels.
    rows: int32 [B], numbers of the rows that take the place of i; None for 0, 1, ...
    frames: clip length T.
    mask_ratio: range of the moving box's side as a fraction of `size`, in (0, 1], may
      be traced; (1, 1) lets everything move. None = no mask.
    distance_jitter: range of the factor on the travelled distance; the fastest speeds
      use at most 1. Training only.
    jitter: options of `augment.draw_jitter`, whose defaults are the paper's; None for
      no colour jitter.
    jitter_strength: in [0, 1], may be traced; scales the jitter.
    flip: mirror half of the source images before cropping, which keeps labels true.
      Training only.
    compat_flip: mirror half of the finished clips without changing their labels, as
      the official code does; left and right then cannot be told apart.
    train: random starts, or centred paths at the exact speeds (evaluation). The
      square, the jitter and the mask are random in both, as in the official code.

  Returns:
    Draws.

  Raises:
    ValueError: for a mask ratio or distance range that makes no sense.
  """
  check_ranges(mask_ratio, distance_jitter, pool)
  moves_unevenly = train and tuple(distance_jitter) != (1, 1)
  path = dict(train=train, distance=tuple(distance_jitter) if moves_unevenly else None)
  shape = dict(size=size, frames=frames)

  def draw_image(key, extent):
    key_place, key_jitter = jax.random.split(key)
    unit = jax.random.uniform(key_place, (pool.num_classes, 12))
    box = background = colours = None
    if mask_ratio is not None:
      background, box = static_mask.draw_mask(unit[:, 6:10], ratio=mask_ratio, **shape)
    if jitter is not None:
      clips = (pool.num_classes, frames)
      colours = augment.draw_jitter(
        key_jitter, clips, strength=jitter_strength, **jitter
      )
    return Draws(
      flip=(unit[0, 10] < 0.5) & (flip and train),
      window=trajectory.draw_windows(unit[:, :6], extent, pool, **path, **shape),
      jitter=colours,
      late_flip=unit[:, 11] < 0.5 if compat_flip else None,
      background=background,
      box=box,
    )

  with jax.named_scope("draw_pseudo_motion"):
    keys = row_keys(key, jnp.arange(len(extent)) if rows is None else rows)
    return jax.vmap(draw_image)(keys, jnp.asarray(extent))


@functools.partial(jax.jit, static_argnames="size")
def render(
  images: jax.Array, extent: jax.Array, draws: Draws, *, size: int, mean, std
) -> jax.Array:
  """Renders the clips of given draws.

  Args:
    images: [B, H, W, 3] uint8 canvases.
    extent: [B, 2] int32, (height, width) of each picture.
    draws: what `draw` returned.
    size: side of the clips in pixels.
    mean, std: of the normalisation.

  Returns:
    [B, P, T, size, size, 3] float32.
  """
  turned = crops.is_turned(extent, images.shape[1:3])
  # Left and right of a turned picture are top and bottom of its canvas.
  mirrored = images
  for axis, chosen in ((2, draws.flip & ~turned), (1, draws.flip & turned)):
    flipped = jnp.flip(images, axis)
    mirrored = jnp.where(chosen[:, None, None, None], flipped, mirrored)
  # Mirroring the canvas moves the picture to its other end.
  side = jnp.where(turned, images.shape[1], images.shape[2])
  shift = jnp.where(draws.flip, side - extent[:, 1], 0)
  planes = jnp.moveaxis(mirrored, -1, 1)

  def render_class(draws):
    with jax.named_scope("crop"):
      x, y = draws.window[..., 0] + shift[:, None], draws.window[..., 1]
      sideways = turned[:, None]
      left, top = jnp.where(sideways, y, x), jnp.where(sideways, x, y)
      cut = crop_path(planes, left, top, size)
      sideways = turned[:, None, None, None, None]
      cut = jnp.where(sideways, cut.swapaxes(-1, -2), cut)
    clip = [cut[:, :, i].astype(jnp.float32) / 255 for i in range(3)]
    if draws.jitter is not None:
      with jax.named_scope("jitter"):
        clip = augment.jitter_planes(clip, draws.jitter)
    clip = augment.normalize(jnp.stack(clip, axis=-1), mean, std)
    if draws.late_flip is not None:
      late_flip = draws.late_flip[:, None, None, None, None]
      clip = jnp.where(late_flip, clip[..., ::-1, :], clip)
    if draws.box is not None:
      with jax.named_scope("static_mask"):
        clip = static_mask.apply_mask(clip, draws.background, draws.box)
    return clip

  # One class of the whole batch at a time: the batch axis stays intact (and sharded),
  # and the working set stays in the CPU's cache (33 instead of 75 ms for 9 clips of
  # 16x112x112).
  per_class = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), draws._replace(flip=None))
  clips = _by_source(jax.lax.map(render_class, per_class))
  return jnp.moveaxis(clips, 0, 1)


def _by_source(clips):
  """Clips [P, B, T, S, S, 3], on a TPU with all of a source one after the other.

  There XLA puts them class by class, and then moves them all for the network.
  """
  return jax.lax.platform_dependent(
    clips,
    tpu=lambda x: with_layout_constraint(x, Layout((1, 0, 2, 5, 3, 4))),
    default=lambda x: x,
  )


def crop_path(
  planes: jax.Array, left: jax.Array, top: jax.Array, size: int
) -> jax.Array:
  """Cuts [B, T, C, size, size] out of [B, C, H, W] at left, top [B, T]; same dtype.

  On TPUs, which take one slice after the other, by products with a 1 in every row:
  3.2 instead of 10 million cycles of a v5e for 1,440 crops of 112x112 out of 320x569.
  """
  slices = functools.partial(_sliced, size=size)
  products = functools.partial(_multiplied, size=size)
  return jax.lax.platform_dependent(planes, left, top, tpu=products, default=slices)


def _sliced(planes, left, top, size):
  def cut(image, left, top):
    return jax.lax.dynamic_slice(image, (0, top, left), (len(image), size, size))

  return jax.vmap(jax.vmap(cut, in_axes=(None, 0, 0)))(planes, left, top)


def _multiplied(planes, left, top, size):
  """bfloat16 holds all whole numbers up to 256, and every sum has one term."""

  def selection(start, length):
    places = start[..., None] + jnp.arange(size)
    return (places[..., None] == jnp.arange(length)).astype(jnp.bfloat16)

  rows, columns = selection(top, planes.shape[2]), selection(left, planes.shape[3])
  cut = jnp.einsum("btih,bchw->btciw", rows, planes.astype(jnp.bfloat16))
  return jnp.einsum("btjw,btciw->btcij", columns, cut).astype(planes.dtype)


def check_ranges(mask_ratio, distance_jitter, pool: LabelPool):
  """Checks what is concrete; traced values (a curriculum) are the caller's duty."""
  low, high = distance_jitter
  # The second fastest speed must not leave the margin either.
  longest = pool.steps / (pool.steps - 1) if pool.steps > 1 else math.inf
  if not (0 < low <= 1 and low <= high <= longest):
    raise ValueError(
      f"distance_jitter must be (low, high) with 0 < low <= 1 and low <= high <= "
      f"{longest:.4g} for {pool.steps} speeds, found {distance_jitter}"
    )
  if mask_ratio is None or any(isinstance(r, jax.core.Tracer) for r in mask_ratio):
    return
  low, high = mask_ratio
  if not 0 < low <= high <= 1:
    raise ValueError(
      f"mask_ratio must be (low, high) with 0 < low <= high <= 1, found {mask_ratio}"
    )
