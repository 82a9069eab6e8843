"""Scores of MAS: losses, accuracies, chance and the best constant guess."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_config import CONFIGS, load
from test_mas import smoke

from motion_jax.methods import make_method
from motion_jax.methods.label_scores import constant_metric


def test_chance_is_that_of_the_paper():
  config = load(CONFIGS / "mas.py").get_config("ucf101")
  scores = make_method(config).scores
  zeros = [jnp.zeros((1, count)) for count in scores.output_sizes()]
  found = scores(zeros, jnp.ones((1, 27), jnp.int32))
  assert float(found["motion_chance"][0]) == pytest.approx(8.88, abs=0.005)
  assert float(found["appearance_chance"][0]) == pytest.approx(7.10, abs=0.005)


def test_a_regression_is_scored_by_squared_errors_and_rounded_values():
  scores = make_method(smoke(motion_weight=2.0, appearance_weight=0.5)).scores
  labels = jnp.ones((2, 27), jnp.int32)
  outputs = []
  for branch, value in (("motion", 1.4), ("appearance", 3.0)):  # from the middle on
    classes = [label.classes for label in scores.labels if label.branch == branch]
    outputs.append(jnp.tile(value - (1 + jnp.array(classes)) / 2, (2, 1)))
  found = scores(outputs, labels)
  np.testing.assert_allclose(found["motion_loss"], 0.16, rtol=1e-5)
  np.testing.assert_allclose(found["appearance_loss"], 4.0)
  np.testing.assert_allclose(found["loss"], 2 * 0.16 + 0.5 * 4, rtol=1e-5)
  assert (found["orientation_accuracy"] == 1).all()
  assert (found["colour_accuracy"] == 0).all()
  assert (found["location_accuracy"] == 0.5).all()


def test_a_network_that_says_nothing_is_at_chance():
  scores = make_method(smoke(appearance=False)).scores
  # 240 is a multiple of all numbers of values, so that each is as frequent.
  labels = [jnp.arange(240) % label.classes + 1 for label in scores.labels]
  found = scores([jnp.zeros((240, 14))], jnp.stack(labels, -1))
  np.testing.assert_allclose(
    found["motion_loss"].mean(), found["motion_chance"][0], rtol=1e-5
  )


def test_the_same_labels_can_be_classified():
  method = make_method(smoke(objective="classification", appearance=False))
  sizes = [16, 8, 16, 8, 4, 8, 4, 8, 8, 8, 8, 8, 3, 3]
  assert method.scores.output_sizes() == [sum(sizes)]
  labels = jnp.array([[1 + i % size for i, size in enumerate(sizes)]])
  logits = [9.0 * jax.nn.one_hot(labels[0, i] - 1, n) for i, n in enumerate(sizes)]
  found = method.scores([jnp.concatenate(logits)[None]], labels)
  assert float(found["motion_loss"][0]) < 0.01
  assert float(found["location_accuracy"][0]) == 1
  chance = sum(map(math.log, sizes)) / len(sizes)
  assert float(found["motion_chance"][0]) == pytest.approx(chance)


def test_the_best_constant_guess_is_scored_over_all_batches():
  rng = np.random.default_rng(0)
  labels = rng.integers(1, 9, (20, 3)).astype(np.int32)
  mask = np.arange(20) != 5
  expected = {
    "squared_error": labels[mask][:, [0, 2]].var(0).mean(),
    "accuracy": np.mean([np.bincount(labels[mask][:, i]).max() / 19 for i in (0, 2)]),
    "cross_entropy": np.mean(
      [
        -sum(p * np.log(p) for p in np.bincount(labels[mask][:, i]) / 19 if p)
        for i in (0, 2)
      ]
    ),
  }
  for score, value in expected.items():
    metric = constant_metric((0, 2), 8, score)
    parts = [
      metric.from_model_output(labels=jnp.asarray(labels[s]), mask=jnp.asarray(mask[s]))
      for s in (slice(0, 7), slice(7, 20))
    ]
    found = metric.empty().merge(parts[0]).merge(parts[1]).compute()
    assert float(found) == pytest.approx(value, rel=1e-4)
