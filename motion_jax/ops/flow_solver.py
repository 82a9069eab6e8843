"""The equations of the variational flow at one level, and a step of their solver.

Contract: every quantity is its own plane, float32 [B, H, W]; a flow is (u, v), in
pixels to the right and down.
"""

import jax.numpy as jnp
from jax import lax

from motion_jax.ops import planes

# Weights of the constancy of brightness and of its gradient. The gradient survives
# changes of light, brightness helps where there is little texture.
_BRIGHTNESS, _GRADIENT = 0.3, 0.7
# Contrast below which a gradient counts as noise, and the residual (in pixels) below
# which the penalty is quadratic.
_NOISE = 0.02
_QUADRATIC = 1e-3
# Steps of the primal-dual method; their product times 8, the norm of the squared
# gradient operator, must not exceed 1.
_STEP = 8**-0.5


def linearise(first, second, flow):
  """Constancy of brightness and of its gradient around the present flow.

  Returns:
    For brightness and its two derivatives (change, across, down, scale): the
    deviation, its derivatives, and 1 / contrast^2 (0 where the flow leaves the frame).
  """
  warped, inside = planes.warp(second, flow)
  # Barriers: fused, every derivative would repeat the warp (and compile for minutes).
  mean, change = lax.optimization_barrier(((first + warped) / 2, warped - first))
  across, down = lax.optimization_barrier(
    (planes.slope(mean, 2), planes.slope(mean, 1))
  )
  mixed = planes.slope(across, 1)
  rows = (
    (change, across, down),
    (planes.slope(change, 2), planes.slope(across, 2), mixed),
    (planes.slope(change, 1), mixed, planes.slope(down, 1)),
  )
  return lax.optimization_barrier(
    tuple((*row, inside / (row[1] ** 2 + row[2] ** 2 + _NOISE**2)) for row in rows)
  )


def system(data, origin, flow):
  """The step of the data term: flow -> inverse @ (flow + shift), per pixel.

  Returns:
    The entries 11, 12, 22 of the inverse; the two of the shift.
  """
  delta = [now - before for now, before in zip(flow, origin, strict=True)]
  squares = [
    scale * jnp.square(change + across * delta[0] + down * delta[1])
    for change, across, down, scale in data
  ]
  brightness = _BRIGHTNESS * lax.rsqrt(squares[0] + _QUADRATIC**2)
  gradient = _GRADIENT * lax.rsqrt(squares[1] + squares[2] + _QUADRATIC**2)
  xx = yy = 1.0
  xy = shift_x = shift_y = 0.0
  for weight, row in zip((brightness, gradient, gradient), data, strict=True):
    change, across, down, scale = row
    weight = _STEP * weight * scale
    offset = weight * (across * origin[0] + down * origin[1] - change)
    xx += weight * across * across
    xy += weight * across * down
    yy += weight * down * down
    shift_x += across * offset
    shift_y += down * offset
  factor = 1 / (xx * yy - xy * xy)
  inverse = yy * factor, -xy * factor, xx * factor
  return lax.optimization_barrier((inverse, (shift_x, shift_y)))


def primal_dual_step(flow, leading, duals, system, smoothness):
  """One step; `leading` is the flow extrapolated by one step.

  The total variation couples u and v on each edge between two pixels, so it treats a
  mirrored flow exactly like the flow.
  """
  duals = tuple(
    _project(
      [d + _STEP * jnp.diff(p, axis=axis) for d, p in zip(dual, leading, strict=True)],
      smoothness,
    )
    for dual, axis in zip(duals, (2, 1), strict=True)
  )
  (xx, xy, yy), shift = system
  u, v = (
    plane + _STEP * (_divergence(across, 2) + _divergence(down, 1)) + move
    for plane, across, down, move in zip(flow, *duals, shift, strict=True)
  )
  moved = xx * u + xy * v, xy * u + yy * v
  leading = tuple(2 * now - before for now, before in zip(moved, flow, strict=True))
  return moved, leading, duals


def _project(dual, radius):
  length = dual[0] * dual[0] + dual[1] * dual[1]
  factor = jnp.minimum(1, radius * lax.rsqrt(length + 1e-12))
  return dual[0] * factor, dual[1] * factor


def _divergence(dual, axis):
  before, after = ([(0, 0)] * 3 for _ in range(2))
  before[axis], after[axis] = (1, 0), (0, 1)
  return jnp.pad(dual, after) - jnp.pad(dual, before)
