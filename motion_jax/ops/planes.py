"""Planes of numbers: resampling, warping, derivatives, medians.

Contract: a plane is float32 [B, H, W] with any range. Beyond the border the last pixel
repeats.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax


def resize(plane, size, weight):
  """Resamples to `size` (H, W); `weight` maps distances in input pixels to weights."""
  vertical = _resampling(plane.shape[1], size[0], weight)
  horizontal = _resampling(plane.shape[2], size[1], weight)
  return jnp.einsum(
    "ih,bhw,jw->bij", vertical, plane, horizontal, precision=lax.Precision.HIGHEST
  )


def smoothing(distance):
  """Gaussian of 0.87 input pixels, which leaves little above the new Nyquist limit."""
  return np.exp(-0.5 * (distance / 0.87) ** 2) * (distance < 4)


def linear(distance):
  """Linear interpolation, for enlarging."""
  return np.maximum(0, 1 - distance)


def _resampling(length, result, weight):
  """Matrix [result, length] with half-pixel centres; the border pixel repeats."""
  centre = (np.arange(result) + 0.5) * (length / result) - 0.5
  matrix = np.zeros((result, length))
  for tap in range(-4, length + 4):
    matrix[:, min(max(tap, 0), length - 1)] += weight(np.abs(centre - tap))
  return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


def warp(plane, flow):
  """Bilinear values of the plane at the ends of the flow, and whether they exist."""
  batch, height, width = plane.shape
  x = jnp.arange(width) + flow[0]
  y = jnp.arange(height)[:, None] + flow[1]
  inside = (jnp.abs(x - (width - 1) / 2) <= width / 2) & (
    jnp.abs(y - (height - 1) / 2) <= height / 2
  )
  x, y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
  left = jnp.minimum(jnp.floor(x), width - 2)
  top = jnp.minimum(jnp.floor(y), height - 2)
  index = (top * width + left).astype(jnp.int32).reshape(batch, -1)
  values = plane.reshape(batch, -1)

  def corner(offset):
    taken = jnp.take_along_axis(values, index + offset, 1, mode="clip")
    return taken.reshape(plane.shape)

  x, y = x - left, y - top
  upper = (1 - x) * corner(0) + x * corner(1)
  lower = (1 - x) * corner(width) + x * corner(width + 1)
  return (1 - y) * upper + y * lower, inside


def slope(plane, axis):
  """Derivative along an axis by the five-point formula."""
  size = plane.shape[axis]
  # Padding fused into what reads it takes twice as long to compile.
  padded = lax.optimization_barrier(_padded(plane, axis, 2))
  taps = [lax.slice_in_dim(padded, i, i + size, axis=axis) for i in (0, 1, 3, 4)]
  return (8 * (taps[2] - taps[1]) - (taps[3] - taps[0])) / 12


def neighbours(plane, axis, distance):
  """For every pixel the values `distance` before and after it along an axis."""
  size = plane.shape[axis]
  padded = _padded(plane, axis, distance)
  return (
    lax.slice_in_dim(padded, 0, size, axis=axis),
    lax.slice_in_dim(padded, 2 * distance, 2 * distance + size, axis=axis),
  )


def _padded(plane, axis, width):
  widths = [(0, 0)] * plane.ndim
  widths[axis] = (width, width)
  return jnp.pad(plane, widths, mode="edge")


def median(plane):
  """Median of 3x3 pixels by comparisons."""
  low, middle, high = _sorted(plane, *neighbours(plane, 1, 1))
  low = jnp.maximum(low, jnp.maximum(*neighbours(low, 2, 1)))
  high = jnp.minimum(high, jnp.minimum(*neighbours(high, 2, 1)))
  middle = _sorted(middle, *neighbours(middle, 2, 1))[1]
  return lax.optimization_barrier(_sorted(low, middle, high)[1])


def _sorted(a, b, c):
  low, high = jnp.minimum(a, b), jnp.maximum(a, b)
  return (
    jnp.minimum(low, c),
    jnp.maximum(low, jnp.minimum(high, c)),
    jnp.maximum(high, c),
  )
