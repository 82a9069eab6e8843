"""3D convolution and max pooling, with a lowering that is fast on the CPU."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from motion_jax.models import patches

LOWERINGS = ("auto", "native", "folded")

# Sublanes of a TPU that bfloat16 channels are padded to.
_CHANNELS = 16

Triple = tuple[int, int, int]


def resolve_lowering(lowering: str) -> str:
  """Returns 'native' or 'folded' for a name of `LOWERINGS`.

  Raises:
    ValueError: if the name is unknown.
  """
  if lowering not in LOWERINGS:
    raise ValueError(
      f"lowering {lowering!r} is unknown; use one of {', '.join(LOWERINGS)}"
    )
  if lowering != "auto":
    return lowering
  return "folded" if jax.default_backend() == "cpu" else "native"


def conv3d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: Triple = (1, 1, 1),
  padding: Triple = (0, 0, 0),
  lowering: str = "auto",
  precision: str = "default",
) -> jax.Array:
  """3D convolution with symmetric zero padding, as in PyTorch.

  Args:
    x: [B, T, H, W, I] float.
    kernel: [kt, kh, kw, I, O], same dtype.
    strides: steps along T, H, W.
    padding: zeros added at both ends of T, H, W.
    lowering: 'native' is one XLA convolution, of two axes where a kernel sees few
      channels or frames, 'folded' the CPU path; 'auto' takes 'folded' on CPUs and
      'native' elsewhere.
    precision: of the products of 'native': 'default' is the device's, which rounds
      float32 to bfloat16 on TPUs and to TF32 on GPUs; 'highest' keeps float32, 'high'
      nearly does. 'folded' takes 'default', which rounds nothing on CPUs.

  Returns:
    [B, T', H', W', O].
  """
  if resolve_lowering(lowering) == "native":
    options = dict(strides=strides[1:], padding=padding[1:], precision=precision)
    if 1 < kernel.shape[0] <= _CHANNELS // x.shape[-1]:
      frames, kernel = _taps_as_channels(x, kernel, strides[0], padding[0])
      y = _native(frames.reshape(-1, *frames.shape[2:]), kernel, **options)
      return y.reshape(*frames.shape[:2], *y.shape[1:])
    if x.shape[1] == kernel.shape[0] == 1 and not padding[0]:
      # GPUs have more kernels for two axes than for three.
      return _native(x[:, 0], kernel[0], **options)[:, None]
    return _native(x, kernel, strides, padding, precision)
  if kernel.shape[1:3] == (1, 1):
    return patches.pointwise_conv(x, kernel, strides, padding)
  return patches.patch_conv(x, kernel, strides, padding)


def _taps_as_channels(x, kernel, stride, padding):
  """All that a kernel sees at a time as channels of one frame, and the kernel for it.

  A TPU pads 3 channels to 16 anyway: the stem of MoDist takes a quarter of the time.
  """
  frames = patches.tap_frames(x, kernel.shape[0], stride, padding)
  inputs = kernel.shape[0] * x.shape[-1]
  kernel = jnp.moveaxis(kernel, 0, 2)
  kernel = kernel.reshape(*kernel.shape[:2], inputs, -1)
  return jnp.concatenate(frames, -1), kernel


def _native(x, kernel, strides, padding, precision):
  axes = "DHW"[5 - x.ndim :]
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    [(p, p) for p in padding],
    dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    precision=precision,
  )


def max_pool(
  x: jax.Array,
  *,
  window: Triple,
  strides: Triple,
  padding: Triple,
  lowering: str = "auto",
) -> jax.Array:
  """Max pooling over T, H, W; the padding is minus infinity at both ends.

  The gradient goes to the first maximum of a window. `lowering` as in `conv3d`.
  """
  if resolve_lowering(lowering) == "native":
    if (window[0], strides[0], padding[0]) == (1, 1, 0):  # of frames, as rows
      frames = x.reshape(-1, *x.shape[2:])
      y = _native_pool(frames, window[1:], strides[1:], padding[1:])
      if x.shape[1] > 1:  # or what is pooled is moved to the layout of clips
        y = lax.optimization_barrier(y)
      return y.reshape(*x.shape[:2], *y.shape[1:])
    return _native_pool(x, window, strides, padding)
  # Last axis first: the first maximum per axis is then the first one in row-major
  # order, which `reduce_window` takes.
  for axis in (3, 2, 1):
    if window[axis - 1] > 1 or strides[axis - 1] > 1:
      parts = (axis, window[axis - 1], strides[axis - 1], padding[axis - 1])
      x = _pool_axis(x, *parts)
  return x


def _native_pool(x, window, strides, padding):
  edges = [(0, 0), *((p, p) for p in padding), (0, 0)]
  return lax.reduce_window(
    x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), edges
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _pool_axis(x, axis, window, stride, padding):
  """Max pooling of one axis.

  XLA's own gradient carries an index through the window: forward and backward of the
  stem's pooling of 9 clips took 1080 ms, this takes 253 ms.
  """
  return _pool_axis_forward(x, axis, window, stride, padding)[0]


def _pool_axis_forward(x, axis, window, stride, padding):
  widths = [(padding if a == axis else 0,) * 2 for a in range(x.ndim)]
  padded = jnp.pad(x, widths, constant_values=-jnp.inf)
  steps = (padded.shape[axis] - window) // stride + 1
  best, winner = None, jnp.int8(0)
  for tap in range(window):
    value = lax.slice_in_dim(padded, tap, tap + (steps - 1) * stride + 1, stride, axis)
    if best is None:
      best = value
    else:
      winner = jnp.where(value > best, jnp.int8(tap), winner)
      best = jnp.maximum(value, best)
  return best, (winner, x.shape[axis])


def _pool_axis_backward(axis, window, stride, padding, saved, gradient):
  winner, size = saved
  steps = gradient.shape[axis]
  length = max(-(-(size + 2 * padding) // stride), steps + (window - 1) // stride)
  phases = []
  # Padded position stride * m + phase was tap `phase + stride * j` of output m - j.
  for phase in range(stride):
    total = jnp.zeros((), gradient.dtype)
    for j, tap in enumerate(range(phase, window, stride)):
      value = jnp.where(winner == tap, gradient, 0)
      widths = [(0, 0)] * gradient.ndim
      widths[axis] = (j, length - steps - j)
      total = total + jnp.pad(value, widths)
    shape = [*gradient.shape[:axis], length, *gradient.shape[axis + 1 :]]
    phases.append(jnp.broadcast_to(total, shape))
  both = jnp.stack(phases, axis + 1)
  flat = both.reshape(
    *gradient.shape[:axis], length * stride, *gradient.shape[axis + 1 :]
  )
  return (lax.slice_in_dim(flat, padding, padding + size, 1, axis),)


_pool_axis.defvjp(_pool_axis_forward, _pool_axis_backward)
