"""Convolutions as matrix products of patches: the lowering for the CPU.

XLA's own convolutions lose time there in two places: kernel gradients, and workspace
taken from the system in every call. Times in this file are the shortest of several
runs on 2 cores, in float32, for 3x3 kernels, 64 channels and 144 images of 28x28.
"""

import functools
import math
import os

import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS_2D = ("NHWC", "HWIO", "NHWC")
# Patches of one group of frames. On 2 cores 1, 2 and 4 MB differed by less than a
# sixth; 8 and 16 MB took a tenth to a quarter more on planes of 14x14 and 28x28.
_PATCH_BYTES = (2 << 20) * (os.cpu_count() or 1)


def pointwise_conv(x, kernel, strides, padding):
  """Convolution with one tap per frame: a sum of matrix products."""
  frames = tap_frames(x, kernel.shape[0], strides[0], padding[0])
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


def tap_frames(x, taps, stride, padding):
  """For every temporal tap the [B, T', H, W, C] frames it is applied to."""
  if (taps, stride, padding) == (1, 1, 0):
    return [x]
  x = jnp.pad(x, [(0, 0), (padding, padding), (0, 0), (0, 0), (0, 0)])
  last = (x.shape[1] - taps) // stride * stride
  return [x[:, tap : tap + last + 1 : stride] for tap in range(taps)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def patch_conv(x, kernel, strides, padding):
  """Convolution of [B, T, H, W, I] with [kt, kh, kw, I, O], by matrix products.

  A sum over the temporal taps of 2D convolutions with time in the batch, in float32.
  `padding` is added at both ends of T, H, W.
  """
  frames = tap_frames(x, kernel.shape[0], strides[0], padding[0])
  total = sum(
    _frame_conv(part, taps, strides[1:], padding[1:])
    for part, taps in zip(frames, kernel, strict=True)
  )
  return total.astype(x.dtype)


def _patch_conv_forward(x, kernel, strides, padding):
  return patch_conv(x, kernel, strides, padding), (x, kernel)


def _patch_conv_backward(strides, padding, saved, gradient):
  x, kernel = saved
  frames = tap_frames(x, kernel.shape[0], strides[0], padding[0])
  kernel_gradient = jnp.stack(
    [
      _kernel_gradient(part, gradient, kernel.shape[1:], strides[1:], padding[1:])
      for part in frames
    ]
  )
  if strides == (1, 1, 1):
    flipped = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    rest = [size - 1 - p for size, p in zip(kernel.shape[:3], padding, strict=True)]
    return patch_conv(gradient, flipped, strides, tuple(rest)), kernel_gradient
  gradient, wide = gradient.astype(jnp.float32), kernel.astype(jnp.float32)
  transposed = jax.linear_transpose(
    lambda x: _xla_folded_conv(x, wide, strides, padding),
    jax.ShapeDtypeStruct(x.shape, jnp.float32),
  )
  return transposed(gradient)[0].astype(x.dtype), kernel_gradient


patch_conv.defvjp(_patch_conv_forward, _patch_conv_backward)


def _xla_folded_conv(x, kernel, strides, padding):
  """`patch_conv` by XLA's 2D convolutions, whose transpose handles strides."""
  frames = tap_frames(x, kernel.shape[0], strides[0], padding[0])
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

  XLA's own took 270 ms, half of it page faults of its workspace; this takes 77 ms.
  """
  batch, frames, height, width, _ = x.shape
  rows, columns = _windows((height, width), kernel.shape, strides, padding)
  weights = kernel.reshape(-1, kernel.shape[-1])
  output = (len(rows[0]), len(columns[0]))
  groups = _groups(x, output, kernel.shape)

  def convolve(part):
    patches = _patches(part, rows, columns, padding)
    return jnp.matmul(patches, weights, preferred_element_type=jnp.float32)

  y = lax.map(convolve, x.reshape(groups, -1, height, width, x.shape[-1]))
  return y.reshape(batch, frames, *output, -1)


def _kernel_gradient(x, gradient, shape, strides, padding):
  """Gradient of the kernel of `_frame_conv`.

  XLA turns it into a convolution whose kernel is the whole image: 974 ms of processor
  time per core, against 83 ms here.
  """
  rows, columns = _windows(x.shape[2:4], shape, strides, padding)
  output = gradient.shape[2:]
  groups = _groups(x, output[:2], shape)

  def add(total, parts):
    part, gradient = parts
    patches = _patches(part, rows, columns, padding)
    # Transposed beforehand: 83 instead of 115 ms for contracting the rows of both.
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
  x = lax.optimization_barrier(x)  # padded once, not once per tap
  cut = [slice(r.start, r.stop, r.step) for r in rows]
  across = [slice(c.start, c.stop, c.step) for c in columns]
  patches = jnp.concatenate([x[:, r, c] for r in cut for c in across], axis=-1)
  return patches.reshape(-1, patches.shape[-1])
