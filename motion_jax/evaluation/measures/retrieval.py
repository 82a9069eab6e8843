"""Nearest neighbours of features: retrieval and k-NN classification.

Contract: features are float [N, D], one row per video; labels are int [N] >= 0.
Nothing is trained. The gallery is the training split, queries are the test split.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.evaluation.measures.scores import check_features, telling, top_accuracy

KS = (1, 5, 10, 20, 50)


def nearest(
  query: np.ndarray,
  gallery: np.ndarray,
  *,
  k: int,
  centred: bool = False,
  batch_size: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the gallery rows with the highest cosine similarity.

  The gallery lies on the device once; queries come in batches, so that the scores of
  256 queries against 240,000 features take 250 MB.

  Args:
    query: float [Q, D].
    gallery: float [G, D].
    k: number of neighbours, in [1, G].
    centred: subtract the mean of the queries from the queries, and that of the gallery
      from the gallery (uses all queries at once: transductive). Of videos of one person
      it takes out what these have in common.
    batch_size: queries per step.

  Returns:
    similarity: float32 [Q, k], falling, in [-1, 1].
    index: int32 [Q, k]; of equal neighbours the lowest index comes first.

  Raises:
    ValueError: if k is out of range, the dimensions differ or a single query is to be
      centred, of which nothing would be left.
  """
  if centred and len(query) < 2:
    raise ValueError("a single query cannot be centred")
  if query.shape[1:] != gallery.shape[1:]:
    raise ValueError(
      f"queries {query.shape} and gallery {gallery.shape} must have features of the"
      " same size; extract both with one encoder"
    )
  if not 1 <= k <= len(gallery):
    raise ValueError(f"k is {k}; the gallery has {len(gallery)} features: use fewer")
  if centred:
    query, gallery = (x - x.mean(0, dtype=np.float64) for x in (query, gallery))
  query, gallery = (np.asarray(x, np.float32) for x in (query, gallery))
  gallery = _unit(gallery)
  batch_size = min(batch_size, len(query))
  similarity, index = [], []
  for start in range(0, len(query), batch_size):
    rows = query[start : start + batch_size]
    count = len(rows)
    # A short last batch would compile again.
    rows = np.pad(rows, [(0, batch_size - count), (0, 0)])
    values, places = jax.device_get(_search(rows, gallery, k))
    similarity.append(values[:count])
    index.append(places[:count])
  return np.concatenate(similarity), np.concatenate(index)


def hits(
  index: np.ndarray,
  query_labels: np.ndarray,
  gallery_labels: np.ndarray,
  *,
  ks: Sequence[int] = KS,
) -> np.ndarray:
  """Whether any of the k nearest neighbours has the label of the query.

  Args:
    index: int [Q, max k], nearest first.
    query_labels: int [Q].
    gallery_labels: int [G].
    ks: the values of k; more than there are neighbours mean all of them.

  Returns:
    bool [Q, len(ks)].
  """
  same = np.asarray(gallery_labels)[index] == np.asarray(query_labels)[:, None]
  return np.stack([same[:, :k].any(1) for k in ks], axis=1)


def recall(
  query: np.ndarray,
  query_labels: np.ndarray,
  gallery: np.ndarray,
  gallery_labels: np.ndarray,
  *,
  ks: Sequence[int] | None = None,
  centred: bool = False,
) -> dict[str, float]:
  """Nearest-neighbour retrieval, R@k: the share of queries with a hit.

  Args:
    query, gallery: float [Q, D], [G, D].
    query_labels, gallery_labels: int [Q], [G].
    ks: the values of k; more than G mean G. None for those of `KS` below G, since all
      of a gallery always holds a hit.
    centred: see `nearest`.

  Returns:
    {'r1': ..., 'r5': ..., ...} in [0, 1].

  Raises:
    ValueError: for missing labels, features that are not finite, shapes that differ.
  """
  _check(query, query_labels, gallery, gallery_labels)
  ks = telling(KS, len(gallery)) if ks is None else ks
  k = min(max(ks), len(gallery))
  _, index = nearest(query, gallery, k=k, centred=centred)
  found = hits(index, query_labels, gallery_labels, ks=ks).mean(0)
  return {f"r{k}": float(value) for k, value in zip(ks, found, strict=True)}


def knn_accuracy(
  query: np.ndarray,
  query_labels: np.ndarray,
  gallery: np.ndarray,
  gallery_labels: np.ndarray,
  *,
  k: int = 200,
  temperature: float = 0.07,
) -> dict[str, float]:
  """Weighted k-NN classification (Wu et al., CVPR 2018, section 3.4).

  Args:
    query, gallery: float [Q, D], [G, D].
    query_labels, gallery_labels: int [Q], [G].
    k: neighbours that vote, with the weight exp(similarity / temperature); more than G
      mean G.
    temperature: of the weights.

  Returns:
    {'top1': ..., 'top5': ...} in [0, 1].

  Raises:
    ValueError: for missing labels, features that are not finite, shapes that differ.
  """
  _check(query, query_labels, gallery, gallery_labels)
  similarity, index = nearest(query, gallery, k=min(k, len(gallery)))
  classes = 1 + max(query_labels.max(), gallery_labels.max())
  scores = np.zeros((len(query), classes))
  row = np.arange(len(query))[:, None]
  weight = np.exp(similarity.astype(np.float64) / temperature)
  np.add.at(scores, (row, np.asarray(gallery_labels)[index]), weight)
  return top_accuracy(scores, query_labels)


def _check(query, query_labels, gallery, gallery_labels):
  check_features("query", query, query_labels)
  check_features("gallery", gallery, gallery_labels)


@jax.jit
def _unit(features):
  length = jnp.linalg.norm(features, axis=-1, keepdims=True)
  return features / jnp.maximum(length, 1e-12)


@functools.partial(jax.jit, static_argnums=2)
def _search(query, gallery, k):
  # bfloat16 products would swap close neighbours.
  highest = jax.lax.Precision.HIGHEST
  scores = jnp.matmul(_unit(query), gallery.T, precision=highest)
  return jax.lax.top_k(scores, k)  # equal values: the lower index first
