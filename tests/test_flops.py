"""Operations per stage, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from motion_jax.costs.flops import stage_flops


def product(a, b):
  with jax.named_scope("product"):
    return a @ b


A, B = jnp.ones((4, 5)), jnp.ones((5, 7))


def test_a_matrix_product_takes_two_operations_per_multiply_add():
  assert stage_flops(product, A, B) == {"product": 2 * 4 * 5 * 7}


def test_the_backward_pass_is_named_after_its_stage():
  def loss(a):
    return product(a, B).sum()

  found = stage_flops(jax.grad(loss), A)
  assert found["product"] == found["product backward"] == 2 * 4 * 5 * 7
  assert sum(found.values()) < 2.4 * found["product"]


def test_a_strided_convolution_counts_its_outputs():
  def convolve(video, kernel):
    with jax.named_scope("outer"), jax.named_scope("inner"):
      return lax.conv_general_dilated(
        video, kernel, (1, 2, 2), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
      )

  found = stage_flops(convolve, jnp.ones((2, 4, 8, 8, 3)), jnp.ones((3, 3, 3, 3, 5)))
  assert found == {"outer": 2 * (2 * 4 * 4 * 4 * 5) * (27 * 3)}


def test_holes_between_the_inputs_of_a_gradient_cost_nothing():
  def convolve(video, kernel):
    steps, edges = (1, 2, 2), [(1, 1)] * 3
    names = ("NDHWC", "DHWIO", "NDHWC")
    out = lax.conv_general_dilated(video, kernel, steps, edges, dimension_numbers=names)
    with jax.named_scope("sum"):
      return out.sum()

  video, kernel = jnp.ones((2, 4, 8, 8, 3)), jnp.ones((3, 3, 3, 3, 5))
  forward = 2 * (2 * 4 * 4 * 4 * 5) * (27 * 3)
  found = stage_flops(jax.grad(convolve, argnums=(0, 1)), video, kernel)
  # The convolution, and one as dear for each of its two gradients.
  assert found[""] == pytest.approx(3 * forward, rel=0.01)


def test_loops_count_as_often_as_they_run_and_jitted_parts_in_their_scope():
  def repeated(x):
    with jax.named_scope("loop"):
      return lax.fori_loop(0, 6, lambda _, y: jax.jit(product)(y, jnp.ones((5, 5))), x)

  found = stage_flops(repeated, A)
  assert found["loop"] == pytest.approx(6 * 2 * 4 * 5 * 5, rel=0.02)


def test_of_a_conditional_the_dearest_branch_counts():
  def choose(flag, x):
    return lax.cond(flag, lambda y: y @ jnp.ones((5, 5)), lambda y: y, x)

  assert stage_flops(choose, True, A)[""] >= 2 * 4 * 5 * 5


def test_moving_numbers_is_free():
  assert stage_flops(lambda x: x.reshape(5, 4).T[::2], A) == {}


def test_what_is_written_for_one_platform_counts_as_it_is_for_others():
  def function(x):
    return jax.lax.platform_dependent(x, tpu=lambda x: x @ x, default=lambda x: x + 1)

  assert sum(stage_flops(function, jnp.ones((5, 5))).values()) == 25
