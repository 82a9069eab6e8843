"""Groups of videos with similar features: k-means clusters and a map of all of them.

Contract: features are float [N, D], one row per video. They are L2-normalised first, so
that distances follow the cosine similarity of the retrieval (MoSI, Huang et al., CVPR
2021, figure 5, which does not name its algorithm).
"""

import dataclasses
import importlib

import numpy as np

from motion_jax.config import UserError

PERPLEXITY = 30.0


@dataclasses.dataclass(frozen=True)
class Clusters:
  """Result of `find_clusters`; the largest cluster is number 0.

  Attributes:
    labels: [N] int, the cluster of every row.
    distances: [N] float, of every row to the centre of its cluster.
  """

  labels: np.ndarray
  distances: np.ndarray

  def __len__(self) -> int:
    return int(self.labels.max()) + 1

  def members(self, number: int) -> np.ndarray:
    """Rows of a cluster, the nearest to its centre first."""
    rows = np.flatnonzero(self.labels == number)
    return rows[np.argsort(self.distances[rows], kind="stable")]


def check_installed() -> None:
  """Raises UserError if scikit-learn is missing; the message says how to get it."""
  _sklearn("cluster")


def find_clusters(features: np.ndarray, count: int, *, seed: int = 0) -> Clusters:
  """Groups rows by k-means, the best of ten starts.

  Args:
    features: [N, D].
    count: number of clusters; not more than N are made.
    seed: of the starts.

  Raises:
    ValueError: without features, or for a count below 1.
    UserError: if scikit-learn is missing; see `check_installed`.
  """
  if count < 1 or not len(features):
    raise ValueError(f"{count} clusters of {len(features)} videos: give 1 or more each")
  rows = _unit(features)
  count = min(count, len(np.unique(rows, axis=0)))
  model = _sklearn("cluster").KMeans(count, n_init=10, random_state=seed)
  found = model.fit_predict(rows)
  centres = model.cluster_centers_[found]
  order = np.argsort(-np.bincount(found), kind="stable")
  return Clusters(np.argsort(order)[found], np.linalg.norm(rows - centres, axis=1))


def embed(
  features: np.ndarray, *, perplexity: float = PERPLEXITY, seed: int = 0
) -> np.ndarray:
  """A map on which similar rows lie close together: t-SNE.

  Args:
    features: [N, D].
    perplexity: how many neighbours count, about; for few rows a third of them.
    seed: of the start.

  Returns:
    [N, 2] float32.

  Raises:
    ValueError: for fewer than four rows.
    UserError: if scikit-learn is missing.
  """
  if len(features) < 4:
    raise ValueError(f"a map of {len(features)} videos says nothing: give 4 or more")
  model = _sklearn("manifold").TSNE(
    perplexity=min(perplexity, (len(features) - 1) / 3),
    init="pca" if features.shape[1] > 1 else "random",
    random_state=seed,
  )
  return np.asarray(model.fit_transform(_unit(features)), np.float32)


def _unit(features):
  features = np.asarray(features, np.float32)
  length = np.linalg.norm(features, axis=1, keepdims=True)
  return features / np.maximum(length, 1e-12)


def _sklearn(part: str):
  try:
    return importlib.import_module(f"sklearn.{part}")
  except ImportError as error:
    raise UserError(
      "clusters and maps of features need scikit-learn: "
      "pip install 'motion_jax[visualize]'"
    ) from error
