"""Leave one video out: the protocol of YUPENN (Derpanis et al., CVPR 2012).

MAS (Wang et al., CVPR 2019, section 4.6) measures its features on dynamic scenes so: a
linear SVM of all other videos names the scene of each one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from motion_jax.config import UserError
from motion_jax.evaluation.measures.scores import check_features
from motion_jax.evaluation.measures.svm import fit_linear_svm


def leave_one_out_accuracy(
  features: np.ndarray,
  labels: np.ndarray,
  *,
  cost: float = 1.0,
  show: Callable[[int], None] = lambda done: None,
) -> float:
  """Share of videos that a linear SVM of all the others names correctly.

  Args:
    features: float [N, D], one row per video; each is scaled to length 1.
    labels: int [N], >= 0.
    cost: C of the SVM.
    show: is called with the number of videos that are done.

  Returns:
    In [0, 1].

  Raises:
    UserError: for missing labels, features that are not finite, a class of one video
      alone, or if scikit-learn is not installed.
  """
  labels = np.asarray(labels)
  check_features("video", features, labels)
  classes, counts = np.unique(labels, return_counts=True)
  if len(classes) < 2 or counts.min() < 2:
    raise UserError(
      f"{len(classes)} classes, the smallest of {counts.min()} videos; leaving one "
      "video out needs two classes of two videos or more"
    )
  lengths = np.linalg.norm(features, axis=1, keepdims=True)
  features = features / np.maximum(lengths, 1e-12)
  right = 0
  for left_out in range(len(labels)):
    rest = np.arange(len(labels)) != left_out
    svm = fit_linear_svm(features[rest], labels[rest], cost=cost)
    right += int(svm.predict(features[left_out : left_out + 1])[0] == labels[left_out])
    show(left_out + 1)
  return right / len(labels)
