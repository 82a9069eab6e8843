"""The 3D network of MAS: C3D with five convolutions (Wang et al., CVPR 2019)."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from motion_jax.models import common, conv
from motion_jax.models.heads import Linear
from motion_jax.models.precision import FLOAT32
from motion_jax.models.stages import ENDPOINTS, StagedEncoder

NAME = "c3d"

_WIDTHS = (1, 2, 4, 4, 4)
# The official code draws all kernels from N(0, 0.01), for pixels in 0 to 255 and width
# 64. Ours are normalised by about 0.225, so that the first kernel is that much larger,
# and the others grow as the width shrinks: activations start out alike.
_STD = 0.01
_PIXEL_SCALE = 0.225 * 255
# Cells of pool5 that the features keep, (T, H, W): all of them for 16x112x112.
_GRID = (1, 4, 4)


class Encoder(StagedEncoder):
  """Five 3x3x3 convolutions with ReLU and max pooling between them; no normalisation.

  `features`, the size of the flattened pool5, is 4096 at width 64, and `hidden`, that
  of the fully connected layers, 2048. Clips of another size than 16x112x112 are
  averaged, or repeated, to the same 1x4x4 cells.

  Args:
    rngs: the `params` stream draws the kernels; biases are zero.
    width: channels of the first convolution; None for the paper's 64.
    remat: recompute each stage in the backward pass.
    in_channels: channels of the video.
    **settings: dtype, lowering and precision of `common.Settings`.
  """

  def __init__(self, *, rngs, width, remat, in_channels, **settings):
    width = 64 if width is None else width
    settings = common.Settings(eps=0.0, groups=1, **settings)
    stages, inputs = [], in_channels
    for factor in _WIDTHS:
      stages.append(Stage(inputs, width * factor, settings=settings))
      inputs = width * factor
    self.stages = nnx.List(stages)
    _draw_kernels(stages, rngs.params(), width)
    self.features = inputs * _GRID[0] * _GRID[1] * _GRID[2]
    self.hidden = 32 * width
    self.lowering = settings.lowering
    self.remat = remat

  def stage_paths(self) -> list[tuple[str | int, ...]]:
    """Prefixes of the paths of conv1 to conv5 in `nnx.state(encoder)`, in order."""
    return [("stages", index) for index in range(len(self.stages))]

  def _through(self, names, x):
    last = len(names) - 1
    for place, name in enumerate(names):
      x = self._step(name, x, pool_before=place == 0, pool_after=place < last)
    return x

  def _step(self, name, x, *, pool_before=True, pool_after=False):
    """One endpoint from the one before, or with pooling at its end, not its start."""
    with jax.named_scope(name):
      index = ENDPOINTS.index(name)
      if index and pool_before:
        x = _max_pool(x, _pool_window(index), self.lowering)
      if name == "pooled":
        x = _resample(x.astype(jnp.float32))
        return x.reshape(x.shape[0], -1)
      stage = self.stages[index]
      pool = _pool_window(index + 1) if pool_after else None
      return common.rematerialised(stage, x, pool) if self.remat else stage(x, pool)


class Stage(nnx.Module):
  """A convolution, max pooling if any, bias and ReLU."""

  def __init__(self, inputs, outputs, *, settings):
    self.conv = common.Conv(inputs, outputs, (3, 3, 3), (1, 1, 1), settings=settings)
    self.bias = nnx.Param(jnp.zeros(outputs))

  def __call__(self, x, pool=None):
    x = self.conv(x)
    if pool is not None:  # before bias and ReLU it is the same for less work
      x = _max_pool(x, pool, self.conv.lowering)
    # In float32, so that the sums of the bias's gradient are.
    return nnx.relu(x.astype(jnp.float32) + self.bias[...]).astype(x.dtype)


class FullyConnected(nnx.Module):
  """Two hidden layers and a linear one: the heads of MAS, and C3D's classifier.

  Hidden biases start at 1, hidden weights from N(0, 0.005), the others from
  N(0, 0.01), as in the official code.

  Args:
    dim: size of the features.
    outputs: number of outputs.
    hidden: size of both hidden layers; 2048 in the paper. Weights grow as it shrinks.
    dropout: probability to drop a hidden value in training mode, in [0, 1): 0.5 for
      classification, 0 for the pretext task.
    rngs: the `params` stream draws the weights.

  Raises:
    ValueError: if `dropout` is outside [0, 1).
  """

  def __init__(
    self,
    dim: int,
    outputs: int,
    *,
    hidden: int = 2048,
    dropout: float = 0.0,
    rngs: nnx.Rngs,
  ):
    if not 0 <= dropout < 1:
      raise ValueError(f"dropout is {dropout}; expected a probability in [0, 1)")
    scale = (2048 / hidden) ** 0.5
    self.fc6 = Linear(dim, hidden, std=0.005 * scale, bias=1.0, rngs=rngs)
    self.fc7 = Linear(hidden, hidden, std=0.005 * scale, bias=1.0, rngs=rngs)
    self.out = Linear(hidden, outputs, std=0.01 * scale, bias=0.0, rngs=rngs)
    self.dropout = nnx.Dropout(dropout)

  def __call__(self, features: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
    """Computes outputs.

    Args:
      features: [B, dim] float.
      rngs: `nnx.Rngs(dropout=key)`; needed in training mode if dropout > 0.

    Returns:
      [B, outputs] float32.
    """
    x = features.astype(jnp.float32)
    for layer in (self.fc6, self.fc7):
      x = self.dropout(nnx.relu(layer(x)), rngs=rngs)
    return self.out(x)


def _pool_window(index):
  """Of the pooling after convolution `index`, counted from 1."""
  return (1, 2, 2) if index == 1 else (2, 2, 2)


def _max_pool(x, window, lowering):
  """Max pooling with stride = window; an odd rest is a window of its own.

  So that 7 becomes 4: TensorFlow's 'SAME' padding, which pads after only.
  """
  rest = [-size % step for size, step in zip(x.shape[1:4], window, strict=True)]
  if any(rest):
    edges = [(0, 0, 0), *((0, r, 0) for r in rest), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
  x = conv.max_pool(
    x, window=window, strides=window, padding=(0, 0, 0), lowering=lowering
  )
  if window[0] == 1 and conv.resolve_lowering(lowering) == "native":
    # Frames become clips again: these are to change their layout, not the float32
    # that bias and ReLU make of them.
    x = jax.lax.optimization_barrier(x)
  return x


def _resample(x):
  """Averages, or repeats, [B, T, H, W, D] to the cells of `_GRID`."""
  for axis, cells in enumerate(_GRID, 1):
    size = x.shape[axis]
    if size != cells:
      # As adaptive average pooling: cell i has floor(i n / c) to ceil((i + 1) n / c).
      place, cell = np.arange(size), np.arange(cells)[:, None]
      inside = (place >= cell * size // cells) & (
        place < -(-(cell + 1) * size // cells)
      )
      weights = (inside / inside.sum(1, keepdims=True)).astype(np.float32)
      x = jnp.tensordot(x, weights, [[axis], [1]], precision=FLOAT32)
      x = jnp.moveaxis(x, -1, axis)
  return x


def _draw_kernels(stages, key, width):
  shapes = tuple(stage.conv.kernel.shape for stage in stages)
  for index, value in enumerate(_draw(key, shapes)):
    scale = _PIXEL_SCALE if index == 0 else (64 / width) ** 0.5
    stages[index].conv.kernel[...] = _STD * scale * value


@functools.partial(jax.jit, static_argnums=1)
def _draw(key, shapes):
  """Normal values of several shapes by one draw, which compiles fastest."""
  ends = list(itertools.accumulate(map(math.prod, shapes)))
  values = jax.random.normal(key, (ends[-1],))
  values = jax.lax.optimization_barrier(values)  # or it is fused into every part
  parts = jnp.split(values, ends[:-1])
  return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
