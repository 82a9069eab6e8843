"""Crops of video on the device, with a static output shape.

Contract: video lies in the top left part of a canvas, [B, T, Hc, Wc, 3], float32 in
[0, 1] or uint8; `extent` int32 [B, 2] is its (height, width). Upright video in a wide
canvas, or wide video in an upright one, lies there turned, rows as columns
(`is_turned`); extents, boxes and results are of the video as it is seen. A box is int32
(top, left, height, width) in pixels and lies inside the extent. One box serves all
frames of a clip. Finding boxes and cutting them out are separate functions: the second
is deterministic. An extent of zero (a clip that could not be decoded) gives zeros, not
NaN.
"""

import jax
import jax.numpy as jnp

from motion_jax.ops import products
from motion_jax.ops.draws import integers

_TRIES = 10


def is_turned(extent: jax.Array, canvas: tuple[int, int]) -> jax.Array:
  """Whether video lies in its canvas with rows as columns, as `data.media.place` does.

  Args:
    extent: int32 [..., 2], (height, width) of the video.
    canvas: (height, width); a square one turns nothing.

  Returns:
    bool [...].
  """
  upright, shape = extent[..., 0] - extent[..., 1], canvas[0] - canvas[1]
  return upright * shape < 0


def in_canvas(extent: jax.Array, canvas: tuple[int, int]) -> jax.Array:
  """The (height, width) [..., 2] of the part of the canvas that video covers."""
  turned = is_turned(extent, canvas)
  return jnp.where(turned[..., None], extent[..., ::-1], extent)


def turn_back(clips: jax.Array, turned: jax.Array) -> jax.Array:
  """Swaps rows and columns of square clips where they are turned.

  Args:
    clips: [..., S, S, C].
    turned: bool, of the leading axes of `clips`.
  """
  turned = turned.reshape(*turned.shape, *[1] * (clips.ndim - turned.ndim))
  return jnp.where(turned, clips.swapaxes(-3, -2), clips)


def draw_resized_crops(
  key: jax.Array,
  extent: jax.Array,
  *,
  area: tuple[float, float],
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
  """Draws boxes of random area and aspect, by the procedure of torchvision.

  Ten tries; the first box that fits gets a random place. If none fits, the largest
  centred box whose aspect is in range.

  Args:
    key: PRNG key.
    extent: int32 [B, 2], (height, width).
    area: range of the box's area as a fraction of the extent's; in (0, 1].
    aspect: range of width / height, log-uniform; positive.

  Returns:
    int32 [B, 4] boxes.
  """
  # One draw for everything compiles faster than several.
  unit = jax.random.uniform(key, (len(extent), 2 * _TRIES + 2))
  low, high = jnp.log(jnp.array(aspect, jnp.float32))
  ratio = jnp.exp(low + (high - low) * unit[:, :_TRIES])
  share = area[0] + (area[1] - area[0]) * unit[:, _TRIES:-2]
  pixels = share * extent.astype(jnp.float32).prod(-1, keepdims=True)
  sides = jnp.sqrt(jnp.stack([pixels / ratio, pixels * ratio], -1))
  sides = jnp.round(sides).astype(jnp.int32)
  fits = ((sides > 0) & (sides <= extent[:, None])).all(-1)
  first = jnp.argmax(fits, axis=1)[:, None, None]
  tried = jnp.take_along_axis(sides, first, axis=1)[:, 0]
  corner = integers(unit[:, -2:], 0, extent - tried)
  drawn = jnp.concatenate([corner, tried], -1)
  return jnp.where(fits.any(1)[:, None], drawn, _largest_box(extent, aspect))


def draw_crops(key: jax.Array, extent: jax.Array, *, size: int) -> jax.Array:
  """Draws the place of a square; all places are equally likely.

  Args:
    key: PRNG key.
    extent: int32 [B, 2], (height, width).
    size: side of the square; a video with a shorter side gets a square of that side.

  Returns:
    int32 [B, 4] boxes.
  """
  side = jnp.minimum(size, extent.min(-1, keepdims=True))
  unit = jax.random.uniform(key, extent.shape)
  return _square(integers(unit, 0, extent - side), side)


def center_crops(extent: jax.Array, *, size: int) -> jax.Array:
  """The square in the middle, as `draw_crops` has them anywhere: for `predict`.

  Args:
    extent: int32 [B, 2], (height, width).
    size: side of the square; a video with a shorter side gets a square of that side.

  Returns:
    int32 [B, 4] boxes.
  """
  side = jnp.minimum(size, extent.min(-1, keepdims=True))
  return _square((extent - side) // 2, side)


def center_square(extent: jax.Array, *, ratio: float = 1.0) -> jax.Array:
  """The centred square with the side int(ratio * short side).

  With ratio 0.875 it is the test crop of MoSI (Huang et al., CVPR 2021).

  Args:
    extent: int32 [B, 2], (height, width).
    ratio: in (0, 1].

  Returns:
    int32 [B, 4] boxes.

  Raises:
    ValueError: if `ratio` is out of bounds.
  """
  if not 0 < ratio <= 1:
    raise ValueError(f"ratio must be in (0, 1], found {ratio}")
  side = (ratio * extent.min(-1, keepdims=True)).astype(jnp.int32)
  return _square(extent // 2 - side // 2, side)


def three_crops(extent: jax.Array, *, size: int) -> jax.Array:
  """Squares at the left, centre and right; at the top, centre and bottom if taller.

  The short side is centred, offsets are rounded up (testing with three views,
  Feichtenhofer et al., ICCV 2019).

  Args:
    extent: int32 [B, 2], (height, width).
    size: side of the squares; a video with a shorter side gets squares of that side.

  Returns:
    int32 [B, 3, 4] boxes.
  """
  extent = extent[:, None]
  side = jnp.minimum(size, extent.min(-1, keepdims=True))
  margin = extent - side
  centre = (margin + 1) // 2
  along = jnp.array([0, 1, 2])[None, :, None]
  spread = jnp.where(along == 1, centre, jnp.where(along == 0, 0, margin))
  tall = extent[..., :1] > extent[..., 1:]
  moves = jnp.concatenate([tall, ~tall], -1)
  corner = jnp.where(moves, spread, centre)
  return _square(corner, jnp.broadcast_to(side, (*corner.shape[:-1], 1)))


def resize_crops(
  video: jax.Array,
  box: jax.Array,
  *,
  size: int,
  flip: jax.Array | None = None,
  turned: jax.Array | None = None,
) -> jax.Array:
  """Cuts boxes out and resizes them: bilinear, half-pixel centres, no antialias.

  Rows and columns are one matrix product each, which needs no gather. A box of
  `size` x `size` is copied.

  Args:
    video: [B, T, Hc, Wc, C] float in [0, 1], or uint8.
    box: int32 [B, 4], or [B, V, 4] for V views of every clip.
    size: side of the result in pixels.
    flip: bool [B] or [B, V]; True mirrors left and right.
    turned: bool [B], from `is_turned`; None for video that lies as it is seen.

  Returns:
    float32 [B, T, size, size, C], or [B, V, T, size, size, C].
  """
  boxes = box.reshape(len(box), -1, 4)
  if turned is not None:
    boxes = jnp.where(turned[:, None, None], boxes[..., jnp.array([1, 0, 3, 2])], boxes)
  rows = _weights(boxes[..., 0], boxes[..., 2], size, video.shape[2])
  columns = _weights(boxes[..., 1], boxes[..., 3], size, video.shape[3])
  if flip is not None:
    flip = flip.reshape(*boxes.shape[:2], 1, 1)
    if turned is not None:  # columns as they are seen are rows there
      sideways = turned[:, None, None, None]
      rows = jnp.where(flip & sideways, rows[..., ::-1, :], rows)
      flip &= ~sideways
    columns = jnp.where(flip, columns[..., ::-1, :], columns)
  clips = products.einsum("bvih,bthwc->bvtiwc", rows, video.astype(jnp.float32))
  clips = products.einsum("bvjw,bvtiwc->bvtijc", columns, clips)
  if video.dtype == jnp.uint8:  # last, so that no canvas of fractions is written
    clips /= 255
  if turned is not None:
    clips = turn_back(clips, turned)
  return clips.reshape(*box.shape[:-1], *clips.shape[2:])


def _largest_box(extent, aspect):
  """The fallback of torchvision: a centred box with the nearest aspect in range."""
  height, width = jnp.maximum(extent, 1).astype(jnp.float32).T
  height_wanted = jnp.round(width / aspect[0])
  width_wanted = jnp.round(height * aspect[1])
  ratio = width / height
  sides = jnp.stack(
    [
      jnp.where(ratio < aspect[0], height_wanted, height),
      jnp.where(ratio > aspect[1], width_wanted, width),
    ],
    -1,
  )
  sides = jnp.minimum(sides.astype(jnp.int32), extent)
  return jnp.concatenate([(extent - sides) // 2, sides], -1)


def _square(corner, side):
  return jnp.concatenate([corner, side, side], -1)


def _weights(start, length, size, canvas):
  """Bilinear weights [..., size, canvas] of one axis; every row sums to 1."""
  start, length = (x[..., None].astype(jnp.float32) for x in (start, length))
  centre = (jnp.arange(size) + 0.5) * (length / size) - 0.5
  centre = start + jnp.clip(centre, 0, jnp.maximum(length - 1, 0))
  return jnp.maximum(0, 1 - jnp.abs(centre[..., None] - jnp.arange(canvas)))
