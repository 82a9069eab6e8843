"""3D convolution and max pooling, with a lowering that is fast on the CPU."""

import jax
import jax.numpy as jnp
from jax import lax

LOWERINGS = ("auto", "native", "folded")

_DIMENSIONS_3D = ("NDHWC", "DHWIO", "NDHWC")
_DIMENSIONS_2D = ("NHWC", "HWIO", "NHWC")

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
  """Max pooling over T, H, W; the padding is minus infinity at both ends."""
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    (1, *window, 1),
    (1, *strides, 1),
    [(0, 0), *((p, p) for p in padding), (0, 0)],
  )


def _folded_conv(x, kernel, strides, padding):
  """A sum over the temporal taps of 2D convolutions with time in the batch."""
  batch, frames = x.shape[:2]
  taps = kernel.shape[0]
  x = jnp.pad(x, [(0, 0), (padding[0],) * 2, (0, 0), (0, 0), (0, 0)])
  steps = (frames + 2 * padding[0] - taps) // strides[0] + 1
  total = None
  for tap in range(taps):
    part = x[:, tap : tap + (steps - 1) * strides[0] + 1 : strides[0]]
    part = lax.conv_general_dilated(
      part.reshape(batch * steps, *x.shape[2:]),
      kernel[tap],
      strides[1:],
      [(p, p) for p in padding[1:]],
      dimension_numbers=_DIMENSIONS_2D,
    )
    total = part if total is None else total + part
  return total.reshape(batch, steps, *total.shape[1:])
