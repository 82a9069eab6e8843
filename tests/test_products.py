"""What a TPU multiplies of images, emulated: how far it is from float32."""

import jax.numpy as jnp
import numpy as np

from motion_jax.ops import augment


def halves(x):
  """The nearest bfloat16 number, and that of the rest."""
  first = x.astype(jnp.bfloat16).astype(jnp.float32)
  return first, (x - first).astype(jnp.bfloat16).astype(jnp.float32)


def test_two_bfloat16_numbers_are_enough_for_grey_levels():
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (64, 64)) / 255, jnp.float32)
  rows = augment._blur_matrix(jnp.float32(1.7), 64, 13)
  matrix = np.asarray(rows, np.float64)
  exact = 255 * matrix @ np.asarray(images, np.float64) @ matrix.T

  def three(a, b):
    (a, a_rest), (b, b_rest) = halves(a), halves(b)
    return a @ b + a @ b_rest + a_rest @ b

  def one(a, b):
    return halves(a)[0] @ halves(b)[0]

  def off(product):  # rows, then columns, of fractions and of levels
    found = (
      255 * product(rows, product(rows, images).T).T,
      product(rows, product(rows, 255 * images).T).T,
    )
    return [np.abs(np.asarray(x, np.float64) - exact).max() for x in found]

  assert max(off(three)) < 0.01
  assert min(off(one)) > 0.25
