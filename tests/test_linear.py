"""The linear probe against scikit-learn, and what it refuses."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from motion_jax.evaluation.measures import linear


def problem(seed, examples, dim=12, classes=5, distance=0.8):
  """Gaussian classes; features have other scales and an offset."""
  rng = np.random.default_rng(seed)
  centres = distance * np.random.default_rng(99).standard_normal((classes, dim))
  labels = rng.permutation(np.arange(examples) % classes)
  features = centres[labels] + rng.standard_normal((examples, dim))
  scale = np.geomspace(0.1, 10, dim)
  return (scale * features + 3).astype(np.float32), labels


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_probabilities_are_those_of_scikit_learn(l2):
  features, labels = problem(0, 300)
  test, _ = problem(1, 50)
  probe = linear.fit(features, labels, l2=l2)
  assert probe.gradient_norm < 1e-5
  mean, std = features.mean(0), features.std(0)
  oracle = LogisticRegression(C=1 / (300 * l2), tol=1e-8, max_iter=5000)
  oracle.fit((features - mean) / std, labels)
  scores = probe(test)
  found = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
  expected = oracle.predict_proba((test - mean) / std)
  np.testing.assert_allclose(found, expected, atol=2e-3)


def test_unused_examples_change_nothing():
  features, labels = problem(0, 300)
  used = np.arange(300) < 100
  broken = np.where(used[:, None], features, 1e3)
  probe = linear.fit(broken, labels, l2=0.01, used=used)
  expected = linear.fit(features[:100], labels[:100], l2=0.01)
  np.testing.assert_allclose(probe(features), expected(features), atol=2e-3)


def test_accuracy_is_the_one_of_scikit_learn_and_repeats_exactly():
  train, test = problem(0, 300), problem(1, 200)
  found = linear.linear_accuracy(*train, *test, l2=(0.01,))
  mean, std = train[0].mean(0), train[0].std(0)
  oracle = LogisticRegression(C=1 / (300 * 0.01), tol=1e-8, max_iter=5000)
  oracle.fit((train[0] - mean) / std, train[1])
  top1 = oracle.score((test[0] - mean) / std, test[1])
  assert 0.5 < top1 < 0.99
  assert found == {"top1": pytest.approx(top1, abs=1e-9), "l2": 0.01}
  assert linear.linear_accuracy(*train, *test, l2=(0.01,)) == found


def test_features_that_never_vary_are_harmless():
  train, test = problem(0, 100), problem(1, 60)
  expected = linear.linear_accuracy(*train, *test, l2=(0.01,))
  for value in (0.0, 0.3, -4321.1):
    wide = [
      np.concatenate([x, np.full((len(x), 2), value, np.float32)], axis=1)
      for x in (train[0], test[0])
    ]
    found = linear.linear_accuracy(wide[0], train[1], wide[1], test[1], l2=(0.01,))
    assert found == expected


def test_the_chosen_penalty_is_the_best_on_the_held_out_part():
  features, labels = problem(3, 60, dim=40, distance=0.3)
  strengths = (10.0, 1.0, 1e-1, 1e-5)
  chosen = linear.choose_l2(features, labels, strengths=strengths, seed=4)
  assert chosen == linear.choose_l2(features, labels, strengths=strengths, seed=4)
  train, test = (features, labels), problem(4, 400, dim=40, distance=0.3)
  found = linear.linear_accuracy(*train, *test, l2=strengths, seed=4)
  assert found == linear.linear_accuracy(*train, *test, l2=(chosen,))
  # With 60 examples in 40 dimensions hardly any penalty overfits.
  assert chosen > 1e-5
  assert found["top1"] > linear.linear_accuracy(*train, *test, l2=(1e-5,))["top1"]


def test_every_class_is_held_out_in_its_share_and_none_vanishes():
  labels = np.repeat([0, 1, 2, 3], [1, 2, 10, 100])
  used = linear._split(labels, np.random.default_rng(0))
  counts = [int((~used[labels == label]).sum()) for label in range(4)]
  assert counts == [0, 1, 2, 20]
  again = linear._split(labels, np.random.default_rng(1))
  assert (used != again).any()


def test_bad_input_is_named():
  (features, labels), test = problem(0, 20), problem(1, 10)
  with pytest.raises(ValueError, match=r"1 of 20 training labels are missing"):
    linear.linear_accuracy(features, np.where(np.arange(20) == 3, -1, labels), *test)
  with pytest.raises(ValueError, match=r"1 test classes .* training example: \[7\]"):
    linear.linear_accuracy(
      features, labels, test[0], np.where(test[1] == 2, 7, test[1])
    )
  with pytest.raises(ValueError, match=r"all 20 training labels are 0; .* two classes"):
    linear.linear_accuracy(features, 0 * labels, test[0], 0 * test[1], l2=(0.1,))
  with pytest.raises(ValueError, match=r"no class has two"):
    linear.choose_l2(features[:5], np.arange(5), strengths=(1, 0.1))
