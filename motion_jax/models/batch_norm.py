"""Batch normalisation in groups of examples, of clips or of their frames."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx


class Moments(NamedTuple):
  """What batch normalisation measures of every group.

  Fields:
    mean, var: float32 [G/N, 1, N, 1, C] of G groups, N of which are dealt together.
    count: values of a channel in each.
  """

  mean: jax.Array
  var: jax.Array
  count: int


class BatchNorm(nnx.Module):
  """Batch normalisation over all axes but the last, in `groups` parts of the batch.

  With G groups every B/G consecutive examples are normalised by their own statistics,
  as G devices with B/G examples each would do. If `interleaved` is set, N consecutive
  groups put their examples together and each takes every N-th. N is the largest divisor
  of G from 4 to 8, so that a device exchanges statistics with few neighbours, however
  many devices there are; without such a divisor, N is G. Running averages are the mean
  over the groups.
  The running variance is the unbiased one, as in PyTorch. All is computed in float32,
  sums of the backward pass included, and rounded to the input's dtype at the end.

  Args:
    channels: size of the last axis.
    eps: added to the variance.
    groups: number of parts; must divide the batch.
  """

  def __init__(self, channels: int, *, eps: float, groups: int = 1):
    self.scale = nnx.Param(jnp.ones(channels))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.mean = nnx.BatchStat(jnp.zeros(channels))
    self.var = nnx.BatchStat(jnp.ones(channels))
    self.eps = eps
    self.groups = groups
    self.momentum = 0.9
    self.interleaved = False
    self.use_running_average = False

  def __call__(
    self,
    x: jax.Array,
    frames: int = 1,
    moments: Moments | None = None,
    signs: jax.Array | float = 1.0,
  ) -> jax.Array:
    """Normalises [B * frames, ..., C].

    Args:
      x: its first axis has `frames` rows of every example.
      frames: see `x`.
      moments: from `measure`, of another array of these examples; None: of `x`.
      signs: [C], 1 or -1: what is normalised is `signs * x`, of which the moments must
        be in training.
    """
    wide = x.astype(jnp.float32)
    if self.use_running_average:
      factor, shift = self._affine(self.mean[...], self.var[...], signs)
      return (wide * factor + shift).astype(x.dtype)
    mean, var, count = moments or self.measure(x, frames)
    factor, shift = (
      jnp.broadcast_to(part, self._parts(x, frames)).reshape(
        x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]
      )
      for part in self._affine(mean, var, signs)
    )
    self._track(self.mean, mean)
    self._track(self.var, var * (count / max(count - 1, 1)))
    return (wide * factor + shift).astype(x.dtype)

  def measure(self, x: jax.Array, frames: int = 1) -> Moments | None:
    """Moments of [B * frames, ..., C]; None where running averages take their place.

    Raises:
      ValueError: if the groups do not divide the batch.
    """
    if self.use_running_average:
      return None
    batch = x.shape[0] // frames
    if batch % self.groups:
      raise ValueError(
        f"batch {batch} must be a multiple of the {self.groups} BatchNorm groups;"
        f" try {self.groups * max(1, batch // self.groups)}"
      )

    def average(values):
      rows = values.mean((*range(1, x.ndim - 1),))
      return rows.reshape(self._parts(x, frames)).mean((1, 3), keepdims=True)

    wide = x.astype(jnp.float32)
    mean = average(wide)
    var = jnp.maximum(average(jnp.square(wide)) - mean**2, 0.0)
    return Moments(mean, var, x.size // (self.groups * x.shape[-1]))

  def _parts(self, x, frames):
    """Shape in which the rows of a group are those of axes 1 and 3."""
    dealt = _neighbours(self.groups) if self.interleaved else 1
    batch = x.shape[0] // frames
    return self.groups // dealt, batch // self.groups, dealt, frames, x.shape[-1]

  def _affine(self, mean, var, signs):
    factor = self.scale[...] * jax.lax.rsqrt(var + self.eps)
    return signs * factor, self.bias[...] - mean * factor

  def _track(self, average, value):
    value = jax.lax.stop_gradient(value.reshape(self.groups, -1).mean(0))
    average[...] = self.momentum * average[...] + (1 - self.momentum) * value


def _neighbours(groups):
  """How many consecutive groups deal their examples out anew."""
  divisors = [count for count in range(4, 9) if groups % count == 0]
  return max(divisors, default=groups)
