"""RoIAlign: features of boxes, read between the pixels of a feature map.

Boxes are (x1, y1, x2, y2) in pixels of the image, features are channels last. The
average of bilinear samples on a regular grid factors into rows and columns, so that
every box is two small matrix products: no gathers, and gradients to the features and
to the boxes come from the same products.
"""

import math

import jax
import jax.numpy as jnp


def roi_align(
  features: jax.Array,
  boxes: jax.Array,
  *,
  scale: float,
  size: int = 7,
  samples: int = 0,
) -> jax.Array:
  """Averages bilinear samples in each bin of each box (He et al., ICCV 2017).

  'Aligned': the centre of the first pixel lies at half a pixel (as in Detectron2).
  Samples more than one pixel outside the map are zero, those nearer take the value at
  its border.

  Args:
    features: [B, H, W, C] float.
    boxes: [B, N, 4] float, (x1, y1, x2, y2) in pixels of the image. Boxes without
      extent give zeros if `samples` is 0.
    scale: pixels of the map per pixel of the image, such as 1/16.
    size: bins per side of a box.
    samples: per side of a bin; 0 for ceil(length of the box / size), in pixels of the
      map, which is limited to what a box of twice the map's length has.

  Returns:
    [B, N, size, size, C] in the dtype of the features, computed in float32.
  """
  corners = boxes.astype(jnp.float32) * scale - 0.5
  x1, y1, x2, y2 = jnp.moveaxis(corners, -1, 0)
  rows = _weights(y1, y2, features.shape[1], size, samples)
  columns = _weights(x1, x2, features.shape[2], size, samples)
  wide, highest = features.astype(jnp.float32), jax.lax.Precision.HIGHEST
  lines = jnp.einsum("bnph,bhwc->bnpwc", rows, wide, precision=highest)
  pooled = jnp.einsum("bnqw,bnpwc->bnpqc", columns, lines, precision=highest)
  return pooled.astype(features.dtype)


def _weights(start, end, length: int, size: int, samples: int) -> jax.Array:
  """What each bin takes from each row (or column) of the map.

  Args:
    start, end: [B, N] float32, in pixels of the map.
    length: of the map.
    size, samples: as for `roi_align`.

  Returns:
    [B, N, size, length] float32; sums to 1 for bins inside.
  """
  step = (end - start) / size
  most = samples or math.ceil(2 * length / size)
  count = jnp.full(step.shape, float(samples))
  if not samples:
    count = jnp.clip(jnp.ceil(jax.lax.stop_gradient(step)), 0, most)
  number = jnp.arange(most, dtype=jnp.float32)
  divisor = jnp.maximum(count, 1)[..., None]
  inside_bin = (number + 0.5) / divisor  # [B, N, samples], as a share of the bin
  bins = jnp.arange(size, dtype=jnp.float32)[:, None]
  place = start[..., None, None] + step[..., None, None] * (
    bins + inside_bin[..., None, :]
  )
  used = (number < count[..., None])[..., None, :]
  used &= (place >= -1) & (place <= length)
  place = place.clip(0, length - 1)
  pixels = jnp.arange(length, dtype=jnp.float32)
  triangle = jnp.maximum(0, 1 - jnp.abs(place[..., None] - pixels))
  return jnp.where(used[..., None], triangle, 0).sum(-2) / divisor[..., None]
