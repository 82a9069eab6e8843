"""Same action or not: the pair protocol of ASLAN (Kliper-Gross et al., TPAMI 2012).

A pair of videos is described by twelve similarities and distances of its two feature
vectors; a linear SVM tells pairs of the same action from others. MAS (Wang et al.,
CVPR 2019, section 4.5) measures its features so.
"""

from __future__ import annotations

import numpy as np

from motion_jax.config import UserError
from motion_jax.evaluation.measures.svm import fit_linear_svm

# The twelve of the benchmark are published in its paper alone. These are the measures
# of the same families, for features that are not negative.
MEASURES = (
  "dot",
  "root_dot",
  "bhattacharyya",
  "harmonic",
  "cosine",
  "correlation",
  "euclidean",
  "manhattan",
  "hellinger",
  "chi_square",
  "jensen_shannon",
  "ruzicka",
)
_EPSILON = 1e-12


def pair_measures(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Twelve symmetric similarities and distances of pairs of features.

  Args:
    one, other: float [N, D], >= 0 (activations after ReLU), in the same order.

  Returns:
    [N, 12] float64, columns as in `MEASURES`.

  Raises:
    UserError: for features that are negative or not finite.
  """
  for features in (one, other):
    if not (np.isfinite(features).all() and (features >= 0).all()):
      raise UserError(
        "the measures of pairs need finite features that are not negative, such as "
        "activations after ReLU"
      )
  x, y = one.astype(np.float64), other.astype(np.float64)
  dot = (x * y).sum(1)
  lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
  total = x + y + _EPSILON
  deviations = [value - value.mean(1, keepdims=True) for value in (x, y)]
  spread = np.sqrt(np.prod([(value**2).sum(1) for value in deviations], axis=0))
  high = np.maximum(x, y).sum(1)
  roots = np.sqrt(x), np.sqrt(y)
  columns = (
    dot,
    np.sqrt(dot),
    np.sqrt((roots[0] * roots[1]).sum(1)),
    np.sqrt((x * y / total).sum(1)),
    dot / (lengths + _EPSILON),
    (deviations[0] * deviations[1]).sum(1) / (spread + _EPSILON),
    np.sqrt(((x - y) ** 2).sum(1)),
    np.abs(x - y).sum(1),
    np.sqrt(((roots[0] - roots[1]) ** 2).sum(1)),
    ((x - y) ** 2 / total).sum(1),
    (_divergence(x, total / 2) + _divergence(y, total / 2)) / 2,
    np.minimum(x, y).sum(1) / (high + _EPSILON),
  )
  return np.stack(columns, axis=1)


def pair_scores(
  measures: np.ndarray, same: np.ndarray, folds: np.ndarray, *, cost: float = 1.0
) -> dict[str, float]:
  """Cross-validates a linear SVM over folds of pairs.

  Every fold is tested once by an SVM of all the others; measures are standardised with
  mean and deviation of what is trained on.

  Args:
    measures: float [N, M].
    same: bool [N], whether the pair shows the same action.
    folds: int [N], the fold of each pair; ASLAN has ten.
    cost: C of the SVM.

  Returns:
    {'accuracy': mean over the folds, 'accuracy_error': standard error of that mean,
    'auc': area under the ROC curve of all pairs}, in [0, 1].

  Raises:
    UserError: if there is one fold alone, or pairs of one kind alone to be trained on,
      or scikit-learn is not installed.
  """
  same, folds = np.asarray(same, bool), np.asarray(folds)
  if len(np.unique(folds)) < 2:
    raise UserError("cross-validation needs two folds or more")
  scores, accuracies = np.zeros(len(same)), []
  for fold in np.unique(folds):
    test = folds == fold
    if len(np.unique(same[~test])) < 2:
      raise UserError(
        f"without fold {fold}, all pairs are of one kind; the SVM needs same and other"
      )
    mean, deviation = measures[~test].mean(0), measures[~test].std(0)
    inputs = (measures - mean) / np.where(deviation > 0, deviation, 1)
    svm = fit_linear_svm(inputs[~test], same[~test], cost=cost)
    scores[test] = svm.decision_function(inputs[test])
    accuracies.append(np.mean((scores[test] > 0) == same[test]))
  from sklearn.metrics import roc_auc_score  # it is there: the SVMs are its own

  error = np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))
  return {
    "accuracy": float(np.mean(accuracies)),
    "accuracy_error": float(error),
    "auc": float(roc_auc_score(same, scores)),
  }


def _divergence(x, middle):
  """Sum of x log(x / middle), where x log 0 is 0."""
  ratio = np.divide(x, middle, out=np.ones_like(x), where=x > 0)
  return (x * np.log(ratio)).sum(1)
