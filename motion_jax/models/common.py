"""Building blocks of all networks, and their split into plain arrays."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from motion_jax.models import conv


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all convolutions and normalisations of a network share.

  Attributes:
    eps: added to the variance in batch normalisation.
    groups: parts of the batch with their own statistics.
    dtype: compute dtype; parameters and statistics are float32.
    lowering, precision: see `conv.conv3d`.
  """

  eps: float
  groups: int
  dtype: jnp.dtype
  lowering: str
  precision: str = "default"


class Conv(nnx.Module):
  """3D convolution without bias, padded by half its kernel; see `conv.conv3d`.

  The kernel is zero until `draw_kernels`.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    kernel: conv.Triple,
    strides: conv.Triple,
    *,
    settings: Settings,
  ):
    self.kernel = nnx.Param(jnp.zeros((*kernel, inputs, outputs)))
    self.strides = strides
    self.padding = tuple(size // 2 for size in kernel)
    self.dtype = settings.dtype
    self.lowering, self.precision = settings.lowering, settings.precision

  def __call__(self, x: jax.Array) -> jax.Array:
    return conv.conv3d(
      x.astype(self.dtype),
      self.kernel[...].astype(self.dtype),
      strides=self.strides,
      padding=self.padding,
      lowering=self.lowering,
      precision=self.precision,
    )


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

  def __call__(self, x: jax.Array) -> jax.Array:
    if self.use_running_average:
      wide = x.astype(jnp.float32)
      return _affine(wide, self.mean[...], self.var[...], self).astype(x.dtype)
    if x.shape[0] % self.groups:
      raise ValueError(
        f"batch {x.shape[0]} must be a multiple of the {self.groups} BatchNorm groups;"
        f" try {self.groups * max(1, x.shape[0] // self.groups)}"
      )
    parts, axes = self._split(x)
    wide = parts.astype(jnp.float32)
    mean = wide.mean(axes, keepdims=True)
    var = jnp.maximum(jnp.square(wide).mean(axes, keepdims=True) - mean**2, 0.0)
    y = _affine(wide, mean, var, self).astype(x.dtype).reshape(x.shape)
    count = parts.size // (self.groups * parts.shape[-1])
    self._track(self.mean, mean)
    self._track(self.var, var * (count / max(count - 1, 1)))
    return y

  def _split(self, x):
    """Puts groups on axes of their own; returns that and the axes a group spans.

    Six axes at most, the groups' none of size 1: jaxlib 0.10.2 and 0.11.0 crash in sums
    of products with seven on CPUs (jax#39257, jax#40412).
    """
    dealt = _neighbours(self.groups) if self.interleaved else 1
    sizes = (self.groups // dealt, x.shape[0] // self.groups, dealt)
    kept = [axis for axis, size in enumerate(sizes) if size > 1 or axis == 1]
    inner = (-1, *x.shape[3:]) if x.ndim == 5 else x.shape[1:]  # T and H as one
    parts = x.reshape(*(sizes[axis] for axis in kept), *inner)
    return parts, (kept.index(1), *range(len(kept), parts.ndim - 1))

  def _track(self, average, value):
    value = jax.lax.stop_gradient(value.reshape(self.groups, -1).mean(0))
    average[...] = self.momentum * average[...] + (1 - self.momentum) * value


class ConvPath(nnx.Module):
  """Convolutions, each with its BatchNorm, and ReLU between them (not after).

  Args:
    steps: (inputs, outputs, kernel, strides) of every convolution.
    settings: shared by all of them.
  """

  def __init__(self, steps: Sequence[tuple], *, settings: Settings):
    self.convs = nnx.List([Conv(*step, settings=settings) for step in steps])
    self.norms = nnx.List(
      [BatchNorm(step[1], eps=settings.eps, groups=settings.groups) for step in steps]
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    for index, (convolve, normalise) in enumerate(
      zip(self.convs, self.norms, strict=True)
    ):
      x = normalise(convolve(nnx.relu(x) if index else x))
    return x


def uniform_fan_in(key: jax.Array, shape: Sequence[int], fan_in: int) -> jax.Array:
  """Draws from U(+-1/sqrt(fan_in)), PyTorch's default for weights and biases."""
  limit = fan_in**-0.5
  return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def draw_kernels(convs: Sequence[Conv], key: jax.Array, init: str) -> None:
  """Initialises the kernels of a network.

  All values come from a single draw: one random array per kernel shape made building
  R(2+1)D-10 take 21 s, nearly all of it compilation.

  Args:
    convs: the convolutions.
    key: PRNG key.
    init: 'uniform' for U(+-1/sqrt(fan_in)), PyTorch's default; 'he' for
      N(0, 2/fan_out).
  """
  shapes = tuple(convolution.kernel.shape for convolution in convs)
  for convolution, value in zip(convs, _draw(key, shapes, init), strict=True):
    convolution.kernel[...] = value


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key, shapes, init):
  draw = jax.random.normal if init == "he" else jax.random.uniform
  bounds = {} if init == "he" else {"minval": -1.0}
  values = draw(key, (sum(map(math.prod, shapes)),), **bounds)
  values = jax.lax.optimization_barrier(values)  # or it is fused into every slice
  kernels, start = [], 0
  for shape in shapes:
    taps, (inputs, outputs) = math.prod(shape[:3]), shape[3:]
    scale = (2 / (taps * outputs)) ** 0.5 if init == "he" else (taps * inputs) ** -0.5
    size = math.prod(shape)
    kernels.append(values[start : start + size].reshape(shape) * scale)
    start += size
  return kernels


def split(module: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
  """Splits a module into its structure and two trees of plain arrays.

  Returns:
    (graphdef, params, stats): structure, trained arrays, BatchNorm statistics.
  """
  graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
  return graphdef, *nnx.as_pure((params, stats))


def call(
  graphdef, params, stats, *args, train: bool, method: str = "__call__", **kwargs
):
  """Calls a split module without side effects.

  Args:
    graphdef: structure from `split`.
    params: trained arrays from `split`.
    stats: BatchNorm statistics from `split`.
    *args: passed to the method.
    train: True uses and tracks batch statistics and enables dropout; False uses the
      running averages.
    method: name of the method to call.
    **kwargs: passed to the method.

  Returns:
    (result of the method, new stats).
  """
  module = nnx.merge(graphdef, params, stats)
  if train:
    module.train()
  else:
    module.eval()
  result = getattr(module, method)(*args, **kwargs)
  return result, nnx.as_pure(nnx.state(module, nnx.BatchStat))


def rematerialised(module: nnx.Module, x: jax.Array) -> jax.Array:
  """Calls a module, recomputing its inner activations in the backward pass."""
  graphdef, params, stats = split(module)

  def run(params, stats, x):
    inner = nnx.merge(graphdef, params, stats)
    return inner(x), nnx.as_pure(nnx.state(inner, nnx.BatchStat))

  y, stats = jax.checkpoint(run)(params, stats, x)
  nnx.update(module, stats)
  return y


def parameter_count(target) -> int:
  """Number of trained values of a module, or of a tree of arrays."""
  if isinstance(target, nnx.Module):
    target = split(target)[1]
  return sum(leaf.size for leaf in jax.tree.leaves(target))


def _neighbours(groups):
  """How many consecutive groups deal their examples out anew."""
  divisors = [count for count in range(4, 9) if groups % count == 0]
  return max(divisors, default=groups)


def _affine(x, mean, var, norm):
  factor = norm.scale[...] * jax.lax.rsqrt(var + norm.eps)
  shift = norm.bias[...] - mean * factor
  return x * factor + shift
