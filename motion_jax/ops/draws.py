"""Random integers from unit draws, and keys of rows.

One large `jax.random.uniform` compiles faster than many small
`jax.random.randint`, each of which unrolls its own generator.
"""

import jax
import jax.numpy as jnp


def row_keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
  """A key per row that depends on the row's number alone.

  Args:
    key: PRNG key.
    numbers: int32 [B].

  Returns:
    [B] PRNG keys, for functions under `jax.vmap`.
  """
  return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def draw_by_row(draw, key: jax.Array, numbers: jax.Array, *arrays: jax.Array):
  """What `draw(key, *arrays)` draws, but each row from its own number alone.

  So that held-out rows get the same draws in any batch, at any place.

  Args:
    draw: from a key and arrays [B, ...] to a tree of arrays [B, ...].
    key: PRNG key.
    numbers: int32 [B].
    *arrays: [B, ...].
  """

  def draw_one(key, *rows):
    drawn = draw(key, *(row[None] for row in rows))
    return jax.tree.map(lambda array: array[0], drawn)

  return jax.vmap(draw_one)(row_keys(key, numbers), *arrays)


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
