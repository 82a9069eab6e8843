"""3D convolution and max pooling, with a lowering that is fast on the CPU."""

import functools
import math
import os

import jax
import jax.numpy as jnp
from jax import lax

LOWERINGS = ("auto", "native", "folded")

_DIMENSIONS_3D = ("NDHWC", "DHWIO", "NDHWC")
_DIMENSIONS_2D = ("NHWC", "HWIO", "NHWC")
# Patches of one group of frames; with 2 cores 4 MB were best among 2, 4, 8 and 16.
_PATCH_BYTES = (2 << 20) * (os.cpu_count() or 1)

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
) -> jax.Array:
  """3D convolution with symmetric zero padding, as in PyTorch.

  Args:
    x: [B, T, H, W, I] float.
    kernel: [kt, kh, kw, I, O], same dtype.
    strides: steps along T, H, W.
    padding: zeros added at both ends of T, H, W.
    lowering: 'native' is one XLA convolution, 'folded' the CPU path; 'auto' takes
      'folded' on CPUs and 'native' elsewhere.

  Returns:
    [B, T', H', W', O].
  """
  if resolve_lowering(lowering) == "native":
    return lax.conv_general_dilated(
      x,
      kernel,
      strides,
      [(p, p) for p in padding],
      dimension_numbers=_DIMENSIONS_3D,
    )
  return _folded_conv(x, kernel, strides, padding)


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
    return lax.reduce_window(
      x,
      -jnp.inf,
      lax.max,
      (1, *window, 1),
      (1, *strides, 1),
      [(0, 0), *((p, p) for p in padding), (0, 0)],
    )
  # Last axis first: the first maximum per axis is then the first one in row-major
  # order, which `reduce_window` takes.
  for axis in (3, 2, 1):
    if window[axis - 1] > 1 or strides[axis - 1] > 1:
      parts = (axis, window[axis - 1], strides[axis - 1], padding[axis - 1])
      x = _pool_axis(x, *parts)
  return x


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


def _folded_conv(x, kernel, strides, padding):
  if kernel.shape[1:3] == (1, 1):
    return _pointwise_conv(x, kernel, strides, padding)
  if strides[1:] == (2, 2) and x.shape[-1] <= 4:
    x, kernel = _space_to_depth(x, kernel, padding)
    strides, padding = (strides[0], 1, 1), (padding[0], 0, 0)
  return _patch_conv(x, kernel, strides, padding)


def _pointwise_conv(x, kernel, strides, padding):
  """Convolution with one tap per frame: a sum of matrix products."""
  frames = _tap_frames(x, kernel.shape[0], strides[0], padding[0])
  # float32 sums: some XLA versions add up bfloat16 products in bfloat16.
  total = sum(
    jnp.matmul(
      part[:, :, :: strides[1], :: strides[2]],
      taps[0, 0],
      preferred_element_type=jnp.float32,
    )
    for part, taps in zip(frames, kernel, strict=True)
  )
  return total.astype(x.dtype)


def _space_to_depth(x, kernel, padding):
  """Turns a spatial stride of 2 into 1 with four times the channels.

  The copies of `_patches` then have 12 instead of 3 neighbouring values: the stem's
  forward pass for 9 clips took 189 instead of 372 ms.
  """
  taps, rows, columns, inputs, outputs = kernel.shape
  widths = [(0, 0), (0, 0)]
  for size, pad in zip(x.shape[2:4], padding[1:], strict=True):
    widths.append((pad, pad + (size % 2)))
  x = jnp.pad(x, [*widths, (0, 0)])
  batch, frames, height, width, _ = x.shape
  x = x.reshape(batch, frames, height // 2, 2, width // 2, 2, inputs)
  x = x.transpose(0, 1, 2, 4, 3, 5, 6)
  x = x.reshape(batch, frames, height // 2, width // 2, 4 * inputs)
  kernel = jnp.pad(kernel, [(0, 0), (0, rows % 2), (0, columns % 2), (0, 0), (0, 0)])
  rows, columns = (rows + 1) // 2, (columns + 1) // 2
  kernel = kernel.reshape(taps, rows, 2, columns, 2, inputs, outputs)
  kernel = kernel.transpose(0, 1, 3, 2, 4, 5, 6)
  return x, kernel.reshape(taps, rows, columns, 4 * inputs, outputs)


def _tap_frames(x, taps, stride, padding):
  """For every temporal tap the [B, T', H, W, C] frames it is applied to."""
  if (taps, stride, padding) == (1, 1, 0):
    return [x]
  x = jnp.pad(x, [(0, 0), (padding, padding), (0, 0), (0, 0), (0, 0)])
  last = (x.shape[1] - taps) // stride * stride
  return [x[:, tap : tap + last + 1 : stride] for tap in range(taps)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _patch_conv(x, kernel, strides, padding):
  """A sum over the temporal taps of 2D convolutions with time in the batch."""
  frames = _tap_frames(x, kernel.shape[0], strides[0], padding[0])
  return sum(
    _frame_conv(part, taps, strides[1:], padding[1:])
    for part, taps in zip(frames, kernel, strict=True)
  )


def _patch_conv_forward(x, kernel, strides, padding):
  return _patch_conv(x, kernel, strides, padding), (x, kernel)


def _patch_conv_backward(strides, padding, saved, gradient):
  x, kernel = saved
  frames = _tap_frames(x, kernel.shape[0], strides[0], padding[0])
  kernel_gradient = jnp.stack(
    [
      _kernel_gradient(part, gradient, kernel.shape[1:], strides[1:], padding[1:])
      for part in frames
    ]
  )
  if strides == (1, 1, 1):
    flipped = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    rest = [size - 1 - p for size, p in zip(kernel.shape[:3], padding, strict=True)]
    return _patch_conv(gradient, flipped, strides, tuple(rest)), kernel_gradient
  transposed = jax.linear_transpose(
    lambda x: _xla_folded_conv(x, kernel, strides, padding), x
  )
  return (*transposed(gradient), kernel_gradient)


_patch_conv.defvjp(_patch_conv_forward, _patch_conv_backward)


def _xla_folded_conv(x, kernel, strides, padding):
  """`_patch_conv` by XLA's 2D convolutions: the faster one to transpose if strided."""
  frames = _tap_frames(x, kernel.shape[0], strides[0], padding[0])
  batch, steps = frames[0].shape[:2]
  total = sum(
    lax.conv_general_dilated(
      part.reshape(batch * steps, *part.shape[2:]),
      taps,
      strides[1:],
      [(p, p) for p in padding[1:]],
      dimension_numbers=_DIMENSIONS_2D,
    )
    for part, taps in zip(frames, kernel, strict=True)
  )
  return total.reshape(batch, steps, *total.shape[1:])


def _frame_conv(x, kernel, strides, padding):
  """2D convolution of the frames of [B, T, H, W, I] as matrix products.

  XLA's own allocates its workspace anew in every call, and the page faults dominate:
  3x3, 64 channels, 144 images of 28x28 took 270 ms, against 77 ms here.
  """
  batch, frames, height, width, _ = x.shape
  rows, columns = _windows((height, width), kernel.shape, strides, padding)
  weights = kernel.reshape(-1, kernel.shape[-1])
  output = (len(rows[0]), len(columns[0]))
  groups = _groups(x, output, kernel.shape)

  def convolve(part):
    return _patches(part, rows, columns, padding) @ weights

  y = lax.map(convolve, x.reshape(groups, -1, height, width, x.shape[-1]))
  return y.reshape(batch, frames, *output, -1)


def _kernel_gradient(x, gradient, shape, strides, padding):
  """Gradient of the kernel of `_frame_conv`.

  XLA turns it into a convolution whose kernel is the whole image: 974 ms for 3x3, 64
  channels, 144 images of 28x28, against 83 ms here.
  """
  rows, columns = _windows(x.shape[2:4], shape, strides, padding)
  output = gradient.shape[2:]
  groups = _groups(x, output[:2], shape)

  def add(total, parts):
    part, gradient = parts
    patches = _patches(part, rows, columns, padding)
    # Materialised: Eigen packs a row-major left side faster (77 instead of 83 ms).
    left = lax.optimization_barrier(gradient.reshape(-1, output[-1]).T)
    return total + jnp.dot(left, patches, preferred_element_type=jnp.float32), None

  start = jnp.zeros((output[-1], math.prod(shape[:3])), jnp.float32)
  parts = (
    x.reshape(groups, -1, *x.shape[2:]),
    gradient.reshape(groups, -1, *output),
  )
  total, _ = lax.scan(add, start, parts)
  return total.T.reshape(shape).astype(x.dtype)


def _windows(sizes, taps, strides, padding):
  """For both axes the input positions of every tap, as ranges."""
  result = []
  for size, count, stride, pad in zip(sizes, taps[:2], strides, padding, strict=True):
    last = (size + 2 * pad - count) // stride * stride
    result.append([range(tap, tap + last + 1, stride) for tap in range(count)])
  return result


def _groups(x, output, taps):
  """How many equal groups of frames keep the patches of each within the cache."""
  frames = x.shape[0] * x.shape[1]
  size = math.prod(output) * math.prod(taps[:3]) * x.dtype.itemsize
  limit = max(1, _PATCH_BYTES // size)
  return next(
    n for n in range(1, frames + 1) if frames % n == 0 and frames // n <= limit
  )


def _patches(x, rows, columns, padding):
  """[N, H, W, C] to [N H' W', taps C]: what each output position sees."""
  x = jnp.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
  x = lax.optimization_barrier(x)  # or the bounds are checked for every value
  cut = [slice(r.start, r.stop, r.step) for r in rows]
  across = [slice(c.start, c.stop, c.step) for c in columns]
  patches = jnp.concatenate([x[:, r, c] for r in cut for c in across], axis=-1)
  return patches.reshape(-1, patches.shape[-1])
