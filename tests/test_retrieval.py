"""Retrieval and k-NN against golden results and brute force."""

from pathlib import Path

import numpy as np
import pytest

from motion_jax.evaluation.measures import retrieval, scores

GOLDEN = np.load(Path(__file__).parent / "golden" / "evaluation.npz")


def golden(name):
  return [
    GOLDEN[f"{name}/{key}"]
    for key in ("query", "query_label", "gallery", "gallery_label")
  ]


def problem(seed, queries, gallery, dim=8, classes=5):
  """Random features and labels."""
  rng = np.random.default_rng(seed)
  features = rng.standard_normal((queries + gallery, dim)).astype(np.float32)
  labels = rng.integers(0, classes, queries + gallery)
  query, rest = features[:queries], features[queries:]
  return query, labels[:queries], rest, labels[queries:]


def brute_force_order(query, gallery):
  """All neighbours of every query, nearest first, in float64."""
  units = [
    x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    for x in (query, gallery)
  ]
  similarity = units[0] @ units[1].T
  return np.argsort(-similarity, axis=1, kind="stable"), similarity


@pytest.mark.parametrize("centred", [False, True])
def test_hits_and_recalls_are_the_golden_ones(centred):
  query, query_labels, gallery, gallery_labels = golden("retrieval")
  mode = f"retrieval/{'centred' if centred else 'plain'}"
  ks = [int(k) for k in GOLDEN["retrieval/k"]]
  _, index = retrieval.nearest(query, gallery, k=50, centred=centred)
  found = retrieval.hits(index, query_labels, gallery_labels, ks=ks)
  assert not GOLDEN[f"{mode}/hit_sensitive"].any()
  np.testing.assert_array_equal(found, GOLDEN[f"{mode}/hit"])
  np.testing.assert_array_equal(np.sort(index), np.sort(GOLDEN[f"{mode}/top50"]))
  recalls = retrieval.recall(*golden("retrieval"), ks=ks, centred=centred)
  assert [*recalls] == ["r1", "r5", "r10", "r20", "r50"]
  np.testing.assert_allclose([*recalls.values()], GOLDEN[f"{mode}/recall"])


def test_equal_neighbours_come_in_the_order_of_the_gallery():
  query, query_labels, gallery, gallery_labels = golden("retrieval_ties")
  similarity, index = retrieval.nearest(query, gallery, k=6)
  np.testing.assert_array_equal(index, GOLDEN["retrieval_ties/order"])
  assert (np.diff(similarity) <= 0).all()
  found = retrieval.hits(index, query_labels, gallery_labels, ks=(1, 2, 3))
  np.testing.assert_array_equal(found, GOLDEN["retrieval_ties/hit_k1_k2_k3"])


@pytest.mark.parametrize(
  ("queries", "gallery", "k", "batch_size"),
  [(1, 1, 1, 256), (7, 30, 30, 3), (10, 13, 4, 5), (9, 50, 20, 9)],
)
def test_neighbours_are_those_of_brute_force(queries, gallery, k, batch_size):
  query, _, rest, _ = problem(queries, queries, gallery)
  order, similarity = brute_force_order(query, rest)
  found, index = retrieval.nearest(query, rest, k=k, batch_size=batch_size)
  assert index.shape == (queries, k)
  np.testing.assert_array_equal(index, order[:, :k])
  expected = np.take_along_axis(similarity, order[:, :k], axis=1)
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_recall_and_knn_are_those_of_brute_force(seed):
  query, query_labels, gallery, gallery_labels = arrays = problem(seed, 40, 60)
  order, similarity = brute_force_order(query, gallery)
  recalls = retrieval.recall(*arrays, ks=(1, 3, 100))
  for k, name in ((1, "r1"), (3, "r3"), (60, "r100")):
    near = gallery_labels[order[:, :k]]
    hit = [label in row for label, row in zip(query_labels, near, strict=True)]
    assert recalls[name] == pytest.approx(np.mean(hit))
  votes = np.zeros((40, 5))
  for row in range(40):
    for place in order[row, :9]:
      votes[row, gallery_labels[place]] += np.exp(similarity[row, place] / 0.07)
  accuracy = retrieval.knn_accuracy(*arrays, k=9)
  assert accuracy["top1"] == np.mean(votes.argmax(1) == query_labels)
  assert [*accuracy] == ["top1"]  # any five of five classes are right


def test_centring_removes_a_shift_between_the_splits():
  query, _, gallery, _ = problem(5, 30, 30)
  shifted = (query + 7, gallery - 5)
  _, plain = retrieval.nearest(*shifted, k=3)
  _, centred = retrieval.nearest(*shifted, k=3, centred=True)
  _, expected = retrieval.nearest(query, gallery, k=3, centred=True)
  np.testing.assert_array_equal(centred, expected)
  assert (plain != expected).mean() > 0.5


def test_of_equal_scores_the_lower_class_counts():
  values = np.array([[1, 1, 0], [0, 0, 0], [0, 2, 1]])
  found = scores.top_accuracy(values, np.array([1, 0, 2]), ks=(1, 2, 5))
  assert found == {"top1": 1 / 3, "top2": 1, "top5": 1}


@pytest.mark.parametrize(("classes", "names"), [(2, 1), (5, 1), (6, 2), (101, 2)])
def test_of_five_classes_or_fewer_top5_is_no_number(classes, names):
  values, labels = np.eye(classes)[[0, 1]], np.array([0, 1])
  assert [*scores.top_accuracy(values, labels)] == ["top1", "top5"][:names]


def test_recall_among_as_many_as_the_gallery_holds_is_no_number():
  query, query_labels, gallery, gallery_labels = problem(0, 4, 20)
  found = retrieval.recall(query, query_labels, gallery, gallery_labels)
  assert [*found] == ["r1", "r5", "r10"]


def test_bad_input_is_named():
  query, query_labels, gallery, gallery_labels = problem(0, 4, 6)
  missing = np.where(np.arange(6) < 2, -1, gallery_labels)
  with pytest.raises(ValueError, match=r"2 of 6 gallery labels are missing"):
    retrieval.recall(query, query_labels, gallery, missing)
  with pytest.raises(ValueError, match=r"4 features and labels of shape \(3,\)"):
    retrieval.recall(query, query_labels[:3], gallery, gallery_labels)
  with pytest.raises(ValueError, match=r"1 of 4 query features are not finite"):
    bad = np.where(np.arange(4)[:, None] == 2, np.nan, query)
    retrieval.knn_accuracy(bad, query_labels, gallery, gallery_labels)
  with pytest.raises(ValueError, match=r"same size; extract both with one encoder"):
    retrieval.recall(query[:, :5], query_labels, gallery, gallery_labels)
  with pytest.raises(ValueError, match=r"query features must be \[N, D\].*\(0, 8\)"):
    retrieval.recall(query[:0], query_labels[:0], gallery, gallery_labels)
  with pytest.raises(ValueError, match="a single query cannot be centred"):
    retrieval.recall(query[:1], query_labels[:1], gallery, gallery_labels, centred=True)
  with pytest.raises(ValueError, match=r"k is 7; the gallery has 6"):
    retrieval.nearest(query, gallery, k=7)
