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
  exact = np.asarray(rows, np.float64) @ np.asarray(images, np.float64)
  (a, a_rest), (b, b_rest) = halves(rows), halves(images)

  def levels(product):
    return 255 * np.abs(np.asarray(product, np.float64) - exact).max()

  assert levels(a @ b + a @ b_rest + a_rest @ b) < 0.01
  assert levels(a @ b) > 0.25
