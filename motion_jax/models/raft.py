"""RAFT: optical flow by recurrent look-ups in all-pairs correlations.

Teed and Deng, ECCV 2020; the networks of the official program, large and small.
Load weights with `raft_weights.load_raft`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from motion_jax.models import common
from motion_jax.models import raft_blocks as blocks
from motion_jax.models.precision import FLOAT32

SIZES = ("large", "small")
SMALLEST = 128  # below, the coarsest correlations of the official program are one pixel

_LEVELS = 4


class Raft(nnx.Module):
  """The network; its kernels are zero until weights are loaded.

  It is built in evaluation mode; after `train()` the batch normalisation of the large
  network uses the statistics of the batch.

  Args:
    size: 'large' (5.3 M parameters) or 'small' (1.0 M).

  Raises:
    ValueError: if the size is unknown.
  """

  def __init__(self, size: str = "large"):
    if size not in SIZES:
      raise ValueError(f"RAFT size {size!r} is unknown; use one of {', '.join(SIZES)}")
    self.size = size
    large = size == "large"
    self.radius = 4 if large else 3
    self.hidden, context = (128, 128) if large else (96, 64)
    lookups = _LEVELS * (2 * self.radius + 1) ** 2
    block = blocks.ResidualBlock if large else blocks.BottleneckBlock
    widths = (64, 96, 128) if large else (32, 64, 96)
    self.fnet = blocks.Encoder(block, widths, 256 if large else 128, "instance")
    self.cnet = blocks.Encoder(
      block, widths, self.hidden + context, "batch" if large else "none"
    )
    if large:
      encoder = blocks.MotionEncoder(lookups, (256, 192), (128, 64), 128)
      gru = blocks.SeparableGru(self.hidden, context + 128)
    else:
      encoder = blocks.MotionEncoder(lookups, (96,), (64, 32), 82)
      gru = blocks.Gru(self.hidden, context + 82)
    self.update_block = blocks.UpdateBlock(
      encoder=encoder,
      gru=gru,
      hidden=self.hidden,
      head=256 if large else 128,
      mask=large,
    )
    self.eval()

  def __call__(
    self, first: jax.Array, second: jax.Array, iterations: int
  ) -> tuple[jax.Array, jax.Array]:
    """Flow between frames whose sides are multiples of 8.

    Args:
      first: [B, H, W, 3] float in [-1, 1].
      second: the same.
      iterations: recurrent updates.

    Returns:
      The flow [B, H/8, W/8, 2] in units of 8 pixels, and [B, H, W, 2] in pixels.
    """
    with jax.named_scope("features"):
      features = self.fnet(jnp.concatenate([first, second]))
      pyramid = correlation_pyramid(*jnp.split(features, 2))
      state = self.cnet(first)
      hidden = jnp.tanh(state[..., : self.hidden])
      context = nnx.relu(state[..., self.hidden :])
    flow = jnp.zeros((*hidden.shape[:3], 2))
    graphdef, weights = nnx.split(self.update_block)

    def update(carry, _):
      hidden, flow = carry
      looked_up = look_up(pyramid, flow, self.radius)
      block = nnx.merge(graphdef, weights)
      hidden, change = block(hidden, context, looked_up, flow)
      return (hidden, flow + change), None

    with jax.named_scope("updates"):
      (hidden, flow), _ = lax.scan(update, (hidden, flow), length=iterations)
    if self.update_block.mask is None:
      return flow, _upsample_linear(flow)
    return flow, _upsample_convex(flow, 0.25 * self.update_block.mask(hidden))


def raft_flow(
  model: Raft, first: jax.Array, second: jax.Array, iterations: int = 20
) -> jax.Array:
  """Motion from `first` to `second`.

  Frames are padded, by repeating their borders evenly on both sides, to multiples of 8
  and at least 128 pixels; the flow is cut back.

  Args:
    model: with weights loaded.
    first: [B, H, W, 3] RGB, uint8 or float in [0, 1].
    second: same shape.
    iterations: recurrent updates; 20 in the official demonstration, 32 for Sintel.

  Returns:
    [B, H, W, 2] float32 pixels; channel 0 to the right, 1 down.

  Raises:
    ValueError: if the frames are no RGB batches of the same shape.
  """
  if first.ndim != 4 or first.shape[-1] != 3 or first.shape != second.shape:
    raise ValueError(
      f"frames must both be [B, H, W, 3], found {first.shape} and {second.shape}"
    )
  return _padded_flow(*common.split(model), first, second, iterations)


def correlation_pyramid(first: jax.Array, second: jax.Array) -> list[jax.Array]:
  """Dot products of all features of two frames, the second at four resolutions.

  Averaging the features before the product gives the average of the products.

  Args:
    first: [B, H, W, D] features.
    second: the same.

  Returns:
    Per level l [B, H, W, H / 2^l, W / 2^l] (rounded down), divided by sqrt(D).
  """
  first = first / first.shape[-1] ** 0.5
  levels = []
  for _ in range(_LEVELS):
    levels.append(jnp.einsum("bhwd,byxd->bhwyx", first, second, precision=FLOAT32))
    batch, height, width, depth = second.shape
    second = second[:, : height // 2 * 2, : width // 2 * 2]
    second = second.reshape(batch, height // 2, 2, width // 2, 2, depth).mean((2, 4))
  return levels


def look_up(pyramid: list[jax.Array], flow: jax.Array, radius: int) -> jax.Array:
  """Correlations around the ends of the flow, linearly interpolated, zero outside.

  A window of shifts is separable, so it is two products with matrices of interpolation
  weights instead of gathers, which suit TPUs badly: 70 MFLOP for frames of 256x340, 1 %
  of the large network's update.

  Args:
    pyramid: of `correlation_pyramid`.
    flow: [B, H, W, 2], in units of the finest level.
    radius: shifts -radius .. radius along both axes, in pixels of each level.

  Returns:
    [B, H, W, levels (2 radius + 1)^2]; the level is the slowest index, then the
    shift to the right, then the shift down.
  """
  height, width = flow.shape[1:3]
  x = flow[..., 0] + jnp.arange(width)
  y = flow[..., 1] + jnp.arange(height)[:, None]
  result = []
  for level, plane in enumerate(pyramid):
    down = _interpolation(y / 2**level, plane.shape[3], radius)
    across = _interpolation(x / 2**level, plane.shape[4], radius)
    rows = jnp.einsum("bhwjy,bhwyx->bhwjx", down, plane, precision=FLOAT32)
    window = jnp.einsum("bhwix,bhwjx->bhwij", across, rows, precision=FLOAT32)
    result.append(window.reshape(*flow.shape[:3], -1))
  return jnp.concatenate(result, -1)


def _interpolation(centre, size, radius):
  """Weights [..., 2 radius + 1, size] of pixels at centre - radius .. + radius."""
  shifts = jnp.arange(-radius, radius + 1)
  position = centre[..., None, None] + shifts[:, None]
  return jnp.maximum(0, 1 - jnp.abs(position - jnp.arange(size)))


@functools.partial(jax.jit, static_argnames=("graphdef", "iterations"))
def _padded_flow(graphdef, params, stats, first, second, iterations):
  model = nnx.merge(graphdef, params, stats)
  pads = [_padding(size) for size in first.shape[1:3]]
  prepared = []
  for frames in (first, second):
    scale = 2 / 255 if frames.dtype == jnp.uint8 else 2.0
    frames = frames.astype(jnp.float32) * scale - 1
    prepared.append(jnp.pad(frames, [(0, 0), *pads, (0, 0)], mode="edge"))
  (top, _), (left, _) = pads
  flow = model(*prepared, iterations)[1]
  return flow[:, top : top + first.shape[1], left : left + first.shape[2]]


def _padding(size):
  total = max(SMALLEST, -(-size // 8) * 8) - size
  return total // 2, total - total // 2


def _upsample_convex(flow, mask):
  """8 times larger: every pixel is a weighted mean of 3x3 coarse ones."""
  batch, height, width, _ = flow.shape
  padded = jnp.pad(8 * flow, [(0, 0), (1, 1), (1, 1), (0, 0)])
  taps = [
    padded[:, row : row + height, column : column + width]
    for row in range(3)
    for column in range(3)
  ]
  weights = nnx.softmax(mask.reshape(batch, height, width, 9, 8, 8), axis=3)
  fine = jnp.einsum(
    "bhwkyx,bhwkc->bhywxc", weights, jnp.stack(taps, 3), precision=FLOAT32
  )
  return fine.reshape(batch, 8 * height, 8 * width, 2)


def _upsample_linear(flow):
  """8 times larger by linear interpolation that maps corners to corners."""
  rows, columns = (_aligned_rows(size) for size in flow.shape[1:3])
  return 8 * jnp.einsum("yh,bhwc,xw->byxc", rows, flow, columns, precision=FLOAT32)


def _aligned_rows(size):
  position = np.arange(8 * size) * ((size - 1) / (8 * size - 1))
  weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))
  return weights.astype(np.float32)
