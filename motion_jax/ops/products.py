"""Products of matrices with the rows and columns of images."""

import functools

import jax
import jax.numpy as jnp


def einsum(subscripts: str, matrix: jax.Array, images: jax.Array) -> jax.Array:
  """Sums of float32 products, off by less than a hundredth of a grey level.

  A TPU multiplies bfloat16 numbers. Each float32 is the sum of three, of which two are
  enough here: three products in place of six (one would be off by half a level). Others
  multiply float32.

  Args:
    subscripts: as of `jnp.einsum`.
    matrix: float32, whose rows sum to 1.
    images: float32, in [0, 1] or in [0, 255].
  """
  product = functools.partial(jnp.einsum, subscripts)
  return jax.lax.platform_dependent(
    matrix,
    images,
    tpu=functools.partial(product, precision=jax.lax.Precision.HIGH),
    default=functools.partial(product, precision=jax.lax.Precision.HIGHEST),
  )
