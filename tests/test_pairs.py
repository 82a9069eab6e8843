"""Pairs of videos (ASLAN) and scenes (YUPENN): measures, folds, known answers."""

import sys

import numpy as np
import pytest

from motion_jax.config import UserError
from motion_jax.evaluation.measures import pairs, scenes, svm


def _features(seed, rows=40, dim=30):
  values = np.random.default_rng(seed).gamma(1.0, size=(rows, dim))
  values[:, :5] *= np.random.default_rng(seed + 1).random((rows, 5)) > 0.5  # zeros
  return values


def test_measures_are_symmetric_and_finite():
  one, other = _features(0), _features(10)
  found = pairs.pair_measures(one, other)
  assert found.shape == (40, len(pairs.MEASURES)) == (40, 12)
  np.testing.assert_allclose(found, pairs.pair_measures(other, one), atol=1e-12)
  empty = np.zeros((3, 30))
  assert np.isfinite(pairs.pair_measures(empty, _features(1, rows=3))).all()
  assert np.isfinite(pairs.pair_measures(empty, empty)).all()


def test_measures_are_those_of_their_names():
  x, y = np.array([[1.0, 4.0, 0.0]]), np.array([[4.0, 1.0, 0.0]])
  found = dict(zip(pairs.MEASURES, pairs.pair_measures(x, y)[0], strict=True))
  assert found["dot"] == 8 and found["root_dot"] == pytest.approx(8**0.5)
  assert found["bhattacharyya"] == pytest.approx(2.0)
  assert found["harmonic"] == pytest.approx(1.6**0.5)
  assert found["cosine"] == pytest.approx(8 / 17)
  expected = np.corrcoef(x[0], y[0])[0, 1]
  assert found["correlation"] == pytest.approx(expected)
  assert found["euclidean"] == pytest.approx(18**0.5) and found["manhattan"] == 6
  assert found["hellinger"] == pytest.approx(2**0.5)
  assert found["chi_square"] == pytest.approx(9 / 5 * 2)
  divergence = np.log(1 / 2.5) + 4 * np.log(4 / 2.5)
  assert found["jensen_shannon"] == pytest.approx(divergence)
  assert found["ruzicka"] == pytest.approx(2 / 8)


def test_equal_features_are_at_distance_zero_and_most_similar():
  same = dict(
    zip(pairs.MEASURES, pairs.pair_measures(_features(0), _features(0)).T, strict=True)
  )
  for name in ("euclidean", "manhattan", "hellinger", "chi_square", "jensen_shannon"):
    np.testing.assert_allclose(same[name], 0, atol=1e-6)
  for name in ("cosine", "correlation", "ruzicka"):
    np.testing.assert_allclose(same[name], 1, atol=1e-6)


def test_negative_features_are_refused():
  with pytest.raises(ValueError, match="not negative"):
    pairs.pair_measures(-np.ones((2, 3)), np.ones((2, 3)))


def _pair_task(seed, noise):
  """300 pairs in ten folds; features of the same action differ by noise alone."""
  rng = np.random.default_rng(seed)
  same = np.tile([True, False], 150)
  centres = rng.gamma(1.0, size=(2, 300, 30))
  other = np.where(same[:, None], centres[0], centres[1])
  sides = (centres[0], other + noise * rng.gamma(1.0, size=other.shape))
  return pairs.pair_measures(*sides), same, np.repeat(np.arange(10), 30)


def test_pairs_that_can_be_told_apart_are():
  scores = pairs.pair_scores(*_pair_task(0, noise=0.01))
  assert scores["accuracy"] == 1 and scores["auc"] == 1
  assert scores["accuracy_error"] == 0


def test_shuffled_labels_are_at_chance():
  measures, same, folds = _pair_task(0, noise=0.01)
  rng = np.random.default_rng(1)
  scores = pairs.pair_scores(measures, rng.permutation(same), folds)
  # The standard deviation of 300 fair guesses is 0.029.
  assert 0.4 < scores["accuracy"] < 0.6 and 0.4 < scores["auc"] < 0.6
  assert 0 < scores["accuracy_error"] < 0.06


def test_measures_are_standardised_by_what_is_trained_on():
  measures, same, folds = _pair_task(0, noise=0.3)
  scores = pairs.pair_scores(measures, same, folds)
  scaled = pairs.pair_scores(measures * 1e3 + 7, same, folds)
  assert scaled["auc"] == pytest.approx(scores["auc"], abs=2e-3)
  assert 0.6 < scores["accuracy"] <= 1


def test_the_test_fold_does_not_change_its_own_classifier(monkeypatch):
  measures, same, folds = _pair_task(0, noise=0.3)
  trained = []

  def fit(features, labels, *, cost):
    trained.append(features)
    return svm.fit_linear_svm(features, labels, cost=cost)

  monkeypatch.setattr(pairs, "fit_linear_svm", fit)
  pairs.pair_scores(measures, same, folds)
  changed = measures.copy()
  changed[folds == 0] *= 100
  pairs.pair_scores(changed, same, folds)
  np.testing.assert_array_equal(trained[0], trained[10])
  assert not np.array_equal(trained[1], trained[11])
  np.testing.assert_allclose(trained[0].mean(0), 0, atol=1e-9)
  np.testing.assert_allclose(trained[0].std(0), 1)


def test_folds_that_cannot_be_validated_are_refused():
  measures, same = np.random.default_rng(0).random((4, 12)), np.array([1, 0, 1, 1])
  with pytest.raises(ValueError, match="two folds"):
    pairs.pair_scores(measures, same, np.zeros(4))
  with pytest.raises(ValueError, match="without fold 0, all pairs are of one kind"):
    pairs.pair_scores(measures, same, np.array([0, 0, 1, 1]))


def test_scenes_that_can_be_told_apart_are_and_shuffled_ones_at_chance():
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(7), 6)
  features = rng.random((7, 20))[labels] + 0.02 * rng.random((42, 20))
  done = []
  found = scenes.leave_one_out_accuracy(features, labels, show=done.append)
  assert found == 1 and done == list(range(1, 43))
  shuffled = scenes.leave_one_out_accuracy(features, rng.permutation(labels))
  assert shuffled < 0.35  # chance is 1/7; three deviations above it 0.3


def test_the_length_of_a_feature_does_not_matter():
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(3), 5)
  features = rng.random((3, 8))[labels] + 0.3 * rng.random((15, 8))
  plain = scenes.leave_one_out_accuracy(features, labels)
  scaled = features * rng.uniform(0.01, 100, (15, 1))
  assert scenes.leave_one_out_accuracy(scaled, labels) == plain


def test_classes_of_one_video_cannot_leave_it_out():
  with pytest.raises(ValueError, match="the smallest of 1 videos"):
    scenes.leave_one_out_accuracy(np.ones((3, 2)), np.array([0, 0, 1]))
  with pytest.raises(ValueError, match="labels are missing"):
    scenes.leave_one_out_accuracy(np.ones((2, 2)), np.array([0, -1]))


def test_a_missing_scikit_learn_is_one_message(monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn.svm", None)
  with pytest.raises(UserError, match=r"motion_jax\[evaluation\]"):
    svm.fit_linear_svm(np.eye(2), np.arange(2))
