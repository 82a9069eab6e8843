"""Schedules and optimisers against their formulas, written in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.training import optim

BASE = dict(
  name="adam", weight_decay=1e-2, b1=0.9, b2=0.999, momentum=0.9, clip_norm=0.0
)


def config(**changes):
  return ConfigDict({**BASE, **changes})


def test_warmup_meets_the_cosine_at_its_end_and_not_the_base_rate():
  rate = optim.learning_rate(
    base=1e-3, total_steps=2200, warmup_steps=220, warmup_start=1e-4
  )
  meeting = 1e-3 * (np.cos(np.pi * 0.1) + 1) / 2
  expected = {
    0: 1e-4,
    110: (1e-4 + meeting) / 2,
    220: meeting,
    1100: 0.5e-3,
    2200: 0.0,
  }
  for step, value in expected.items():
    np.testing.assert_allclose(rate(step), value, rtol=1e-5, atol=1e-10)


def test_no_warmup_starts_at_the_base_rate():
  rate = optim.learning_rate(
    base=0.1, total_steps=10, warmup_steps=0, warmup_start=1e-4
  )
  np.testing.assert_allclose(rate(0), 0.1)


@pytest.mark.parametrize("warmup", [0, 4])
def test_the_rate_falls_to_a_tenth_at_every_drop(warmup):
  rate = optim.learning_rate(
    base=0.5, total_steps=100, warmup_steps=warmup, warmup_start=0.1, drops=(20, 60)
  )
  found = [float(rate(step)) for step in (19, 20, 59, 60, 99)]
  np.testing.assert_allclose(found, [0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-5)
  np.testing.assert_allclose(rate(0), 0.1 if warmup else 0.5)


def run(settings, steps=3, rate=0.1):
  params = {"kernel": jnp.full((2, 2), 0.5), "bias": jnp.full((2,), 0.5)}
  optimizer = optim.make_optimizer(settings, lambda step: rate)
  state = optimizer.init(params)
  for _ in range(steps):
    grads = {"kernel": jnp.full((2, 2), 0.3), "bias": jnp.full((2,), 0.3)}
    updates, state = optimizer.update(grads, state, params)
    params = {name: params[name] + updates[name] for name in params}
  return params


def adam(value, decay, steps=3, rate=0.1, coupled=True):
  first = second = 0.0
  for step in range(1, steps + 1):
    grad = 0.3 + (decay * value if coupled else 0.0)
    first = 0.9 * first + 0.1 * grad
    second = 0.999 * second + 0.001 * grad**2
    move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    value -= rate * (move + (0.0 if coupled else decay * value))
  return value


@pytest.mark.parametrize(("name", "coupled"), [("adam", True), ("adamw", False)])
def test_adam_couples_weight_decay_and_adamw_does_not(name, coupled):
  decay = 0.5  # large, so that the two differ
  params = run(config(name=name, weight_decay=decay))
  np.testing.assert_allclose(
    params["kernel"][0, 0], adam(0.5, decay, coupled=coupled), rtol=1e-4
  )
  assert abs(adam(0.5, decay) - adam(0.5, decay, coupled=False)) > 1e-3


def test_biases_and_norms_are_not_decayed():
  params = run(config(weight_decay=0.5))
  np.testing.assert_allclose(params["bias"][0], adam(0.5, 0.0), rtol=1e-4)


def test_clipping_bounds_the_global_norm():
  params = run(
    config(name="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.1), steps=1, rate=1.0
  )
  moved = np.concatenate([np.ravel(0.5 - array) for array in params.values()])
  np.testing.assert_allclose(np.linalg.norm(moved), 0.1, rtol=1e-4)


def test_an_unknown_optimizer_is_refused_with_the_known_ones():
  with pytest.raises(UserError, match="adamw"):
    optim.make_optimizer(config(name="adan"), lambda step: 0.1)
