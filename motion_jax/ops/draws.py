"""Random integers from unit draws.

One large `jax.random.uniform` compiles faster than many small
`jax.random.randint`, each of which unrolls its own generator.
"""

import jax
import jax.numpy as jnp


def integers(unit: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
  """Maps unit draws to uniform integers.

  Args:
    unit: float32 in [0, 1).
    low, high: int32, both inclusive, broadcast against `unit`; high - low < 2^16, so
      that 23 random bits make no visible bias.

  Returns:
    int32 in [low, high].
  """
  count = jnp.asarray(high - low + 1)
  return low + jnp.minimum((unit * count).astype(jnp.int32), count - 1)
