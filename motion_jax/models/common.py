"""Building blocks of all networks, and their split into plain arrays."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from motion_jax.models import conv
from motion_jax.models.batch_norm import BatchNorm


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

  def __call__(self, x: jax.Array, signs: jax.Array | float = 1.0) -> jax.Array:
    """Convolves; `signs` [C], 1 or -1, are those of the outputs."""
    return conv.conv3d(
      x.astype(self.dtype),
      (signs * self.kernel[...]).astype(self.dtype),
      strides=self.strides,
      padding=self.padding,
      lowering=self.lowering,
      precision=self.precision,
    )


class ConvPath(nnx.Module):
  """Convolutions, each with its BatchNorm, and ReLU between them (not after).

  Args:
    steps: (inputs, outputs, kernel, strides) of every convolution.
    settings: shared by all of them.
    pool: window, strides and padding of a max pooling at the end, if any.
  """

  def __init__(self, steps: Sequence[tuple], *, settings: Settings, pool=None):
    self.convs = nnx.List([Conv(*step, settings=settings) for step in steps])
    self.norms = nnx.List(
      [BatchNorm(step[1], eps=settings.eps, groups=settings.groups) for step in steps]
    )
    self.pool = pool

  def __call__(self, x: jax.Array, frames: int = 1) -> jax.Array:
    """Maps [B * frames, T, H, W, C]; `frames` as in `BatchNorm`."""
    last = len(self.convs) - 1
    for index, (convolve, normalise) in enumerate(
      zip(self.convs, self.norms, strict=True)
    ):
      x = nnx.relu(x) if index else x
      if self.pool and index == last:
        x = self._pooled(convolve, normalise, x, frames)
      else:
        x = normalise(convolve(x), frames)
    return x

  def _pooled(self, convolve, normalise, x, frames):
    """The maxima of what is normalised, found before it is: a quarter of the work.

    Where the scale is negative these are the minima of what is not, so that such
    channels are turned over until they are normalised. No number is another one by
    this, but for the gradient of a scale that is 0 itself.
    """
    signs = jnp.where(normalise.scale[...] < 0, -1.0, 1.0)
    x = convolve(x, signs)
    moments = normalise.measure(x, frames)
    if moments:
      moments = moments._replace(mean=signs * moments.mean)
    window, strides, padding = self.pool
    x = conv.max_pool(
      x, window=window, strides=strides, padding=padding, lowering=convolve.lowering
    )
    return normalise(x, frames, moments, signs)


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


def rematerialised(
  module: nnx.Module, x: jax.Array, *args: int | tuple[int, ...] | None
) -> jax.Array:
  """Calls a module, recomputing its inner activations in the backward pass."""
  graphdef, params, stats = split(module)

  def run(params, stats, x):
    inner = nnx.merge(graphdef, params, stats)
    return inner(x, *args), nnx.as_pure(nnx.state(inner, nnx.BatchStat))

  y, stats = jax.checkpoint(run)(params, stats, x)
  nnx.update(module, stats)
  return y


def parameter_count(target) -> int:
  """Number of trained values of a module, or of a tree of arrays."""
  if isinstance(target, nnx.Module):
    target = split(target)[1]
  return sum(leaf.size for leaf in jax.tree.leaves(target))
