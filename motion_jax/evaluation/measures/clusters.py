"""Groups of videos with similar features: k-means clusters and a map of all of them.

Contract: features are float [N, D], one row per video. They are L2-normalised first, so
that distances follow the cosine similarity of the retrieval (MoSI, Huang et al., CVPR
2021, figure 5, which does not name its algorithm).
"""

import dataclasses

import numpy as np

from motion_jax.config import UserError

PERPLEXITY = 30.0  # how many neighbours count, about; of few rows a third of them


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
  try:
    import sklearn.cluster  # noqa: F401
  except ImportError as error:
    raise UserError(
      "clusters and maps of features need scikit-learn: "
      "pip install 'motion_jax[visualize]'"
    ) from error


def find_clusters(features: np.ndarray, count: int, *, seed: int = 0) -> Clusters:
  """Groups rows by k-means, the best of ten starts.

  Args:
    features: [N, D].
    count: number of clusters; not more than N are made.
    seed: of the starts.
  """
  from sklearn.cluster import KMeans

  rows = _unit(features)
  count = min(count, len(np.unique(rows, axis=0)))
  model = KMeans(count, n_init=10, random_state=seed)
  found = model.fit_predict(rows)
  centres = model.cluster_centers_[found]
  order = np.argsort(-np.bincount(found), kind="stable")
  return Clusters(np.argsort(order)[found], np.linalg.norm(rows - centres, axis=1))


def embed(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
  """A map [N, 2] float32 on which similar rows lie close together: t-SNE.

  Args:
    features: [N, D], four rows or more.
    seed: of the start.
  """
  from sklearn.manifold import TSNE

  model = TSNE(
    perplexity=min(PERPLEXITY, (len(features) - 1) / 3),
    init="pca" if features.shape[1] > 1 else "random",
    random_state=seed,
  )
  return np.asarray(model.fit_transform(_unit(features)), np.float32)


def _unit(features):
  features = np.asarray(features, np.float32)
  length = np.linalg.norm(features, axis=1, keepdims=True)
  return features / np.maximum(length, 1e-12)
