"""Accuracies from class scores, and the checks that all evaluations share."""

from collections.abc import Sequence

import numpy as np

from motion_jax.config import UserError


def top_accuracy(
  scores: np.ndarray, labels: np.ndarray, *, ks: Sequence[int] | None = None
) -> dict[str, float]:
  """Share of examples whose label is among the k highest scores.

  Args:
    scores: [N, classes]; of equal scores the lower class counts as higher.
    labels: int [N] in [0, classes).
    ks: the values of k; more than `classes` mean `classes`. None for those of (1, 5)
      that tell something; see `telling`.

  Returns:
    {'top1': ..., 'top5': ...} in [0, 1].
  """
  order = np.argsort(-np.asarray(scores), axis=1, kind="stable")
  right = order == np.asarray(labels)[:, None]
  ks = telling((1, 5), order.shape[1]) if ks is None else ks
  return {f"top{k}": float(right[:, :k].any(1).mean()) for k in ks}


def telling(ks: Sequence[int], choices: int) -> tuple[int, ...]:
  """The values of k that tell something: 1, and what is less than all the choices."""
  return tuple(k for k in ks if k == 1 or k < choices)


def check_features(name: str, features: np.ndarray, labels: np.ndarray) -> None:
  """Checks features [N, D] and their labels int [N] before an evaluation.

  Raises:
    UserError: if a label is missing (negative) or a feature is not finite.
    ValueError: if there are no features, or shapes do not fit.
  """
  if features.ndim != 2 or not len(features):
    raise ValueError(f"{name} features must be [N, D], found shape {features.shape}")
  if labels.shape != features.shape[:1]:
    raise ValueError(
      f"{name} has {len(features)} features and labels of shape {labels.shape};"
      " give one label per feature"
    )
  missing = int((labels < 0).sum())
  if missing:
    raise UserError(
      f"{missing} of {len(labels)} {name} labels are missing (-1); this evaluation"
      " needs labelled data: drop those examples or put videos into class folders"
    )
  broken = int((~np.isfinite(features).all(1)).sum())
  if broken:
    raise UserError(
      f"{broken} of {len(features)} {name} features are not finite; the encoder has"
      " diverged: use an earlier checkpoint or a lower learning rate"
    )
