"""Scores of videos from their views."""

import numpy as np
import pytest

from motion_jax.evaluation.measures.views import VideoScores


def test_scores_are_means_of_views_whatever_their_order():
  rng = np.random.default_rng(0)
  index = rng.integers(0, 7, 60)
  valid = rng.random(60) < 0.8
  index[~valid] = -1  # padding
  views = rng.dirichlet(np.ones(5), 60)
  scores = VideoScores(8, 5)
  order = rng.permutation(60)
  for part in np.split(order, 6):
    scores.add(index[part], valid[part], views[part])
  for video in range(7):
    mean = views[(index == video) & valid].mean(0)
    np.testing.assert_allclose(scores.probabilities()[video], mean)
  assert scores.seen().tolist() == [True] * 7 + [False]


def test_a_video_of_which_one_view_is_damaged_does_not_count():
  scores = VideoScores(3, 2)
  views = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
  scores.add(np.array([0, 1, 1, -1]), np.array([True, True, False, False]), views)
  assert scores.seen().tolist() == [True, False, False]
  assert scores.accuracy(np.array([0, 0, 0])) == 1.0


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_accuracy_equals_brute_force(k):
  rng = np.random.default_rng(k)
  views, labels = rng.dirichlet(np.ones(6), 40), rng.integers(0, 6, 41)
  scores = VideoScores(41, 6)  # the last one is never seen
  scores.add(np.arange(40), np.ones(40, bool), views)
  hits = [sum(row > row[label]) < k for row, label in zip(views, labels, strict=False)]
  assert scores.accuracy(labels, k) == pytest.approx(np.mean(hits))


def test_the_mean_is_of_probabilities_and_not_of_logits():
  views = np.array([[0.98, 0.02], [0.3, 0.7], [0.3, 0.7]])
  scores = VideoScores(1, 2)
  scores.add(np.zeros(3, int), np.ones(3, bool), views)
  assert scores.accuracy(np.array([0])) == 1.0


def test_padding_never_counts():
  scores = VideoScores(2, 2)
  scores.add([-1, 0], [False, True], [[1.0, 0.0], [0.2, 0.8]])
  assert scores.seen().tolist() == [True, False]
  assert scores.accuracy(np.array([1, 0])) == 1.0
