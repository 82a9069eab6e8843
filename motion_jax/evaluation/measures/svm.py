"""Linear support vector machines of scikit-learn, which is an optional dependency."""

from __future__ import annotations

import numpy as np

from motion_jax.config import UserError


def fit_linear_svm(features: np.ndarray, labels: np.ndarray, *, cost: float = 1.0):
  """Fits a linear SVM, one class against the rest.

  Args:
    features: float [N, D].
    labels: int [N], of at least two classes.
    cost: C of the SVM; larger fits closer.

  Returns:
    The fitted `sklearn.svm.LinearSVC`.

  Raises:
    UserError: if scikit-learn is not installed.
  """
  try:
    from sklearn.svm import LinearSVC
  except ImportError as error:
    raise UserError(
      "the linear SVM of this protocol needs scikit-learn; install it with "
      "pip install 'motion_jax[evaluation]'"
    ) from error
  # The seed orders the coordinates of the dual problem, where that one is solved.
  return LinearSVC(C=cost, random_state=0, max_iter=20_000).fit(features, labels)
