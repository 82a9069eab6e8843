"""Contrast against a queue of negatives (MoDist, Xiao et al., 2021; MoCo).

Contract: queries and keys are float32 [B, dim] of unit length (`normalize_embedding`);
`ids` are int32 [B], the videos they come from. B is the global batch. In a program for
a mesh (`sharding.on`), rows are split over its axis `data` and so is the queue: every
device writes its own keys into its own part of it, and scores all queries against that
part; where the devices do not divide the rows, each has all of them. Only queries,
keys of the present batch and numbers per query travel, never keys of the queue.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

EMPTY = -1
# bfloat16 products would move logits by hundredths.
_HIGHEST = jax.lax.Precision.HIGHEST
# Far below any logit, but finite: a query without negatives has loss 0, not NaN.
_MASKED = -1e9


class Queue(NamedTuple):
  """A ring buffer of the keys of the last N / B batches.

  Its shape does not depend on the number of devices. Read from slot `cursor` on, slot
  by slot, the oldest key comes first, as in a queue of N single keys.

  Fields:
    keys: float32 [N / B, B, dim]; split over the devices along axis 1.
    ids: int32 [N / B, B], videos of the keys, `EMPTY` at the start; split like keys.
    cursor: int32 [], the slot that the next batch overwrites.
  """

  keys: jax.Array
  ids: jax.Array
  cursor: jax.Array


class Negatives(NamedTuple):
  """What a contrast needs to know about the negatives of each query, float32 [B]."""

  log_sum: jax.Array  # log of the sum of exp(similarity / temperature)
  highest: jax.Array  # the highest similarity
  mean: jax.Array  # the mean similarity


class Contrast(NamedTuple):
  """One term of a contrastive loss and what tells of its health, float32 [B]."""

  loss: jax.Array
  accuracy: jax.Array  # 1 where the positive is more similar than all negatives
  batch_accuracy: jax.Array  # 1 where it is more similar than the batch's other keys
  positive: jax.Array  # similarity of the positive, in [-1, 1]
  negative: jax.Array  # mean similarity of the negatives


def normalize_embedding(embedding: jax.Array) -> jax.Array:
  """Scales [..., dim] to unit length, in float32."""
  wide = embedding.astype(jnp.float32)
  square = jnp.square(wide).sum(-1, keepdims=True)
  return wide * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def make_queue(key: jax.Array, *, size: int, batch_size: int, dim: int) -> Queue:
  """A queue of random unit vectors of no video, which count as negatives (MoCo).

  Args:
    key: PRNG key.
    size: number of keys N, a multiple of `batch_size`; 65,536 in MoDist.
    batch_size: keys per step B, over all devices.
    dim: size of an embedding.
  """
  shape = (size // batch_size, batch_size)
  keys = normalize_embedding(jax.random.normal(key, (*shape, dim)))
  ids = jnp.full(shape, EMPTY, jnp.int32)
  return Queue(keys, ids, jnp.zeros((), jnp.int32))


def queue_shardings(mesh: Mesh, batch_size: int) -> Queue:
  """Where the arrays of a queue of so many keys per step lie on a mesh."""
  rows = NamedSharding(mesh, _split(1 if batch_size % mesh.size == 0 else None))
  return Queue(keys=rows, ids=rows, cursor=NamedSharding(mesh, PartitionSpec()))


def enqueue(queue: Queue, key: jax.Array, ids: jax.Array, valid: jax.Array) -> Queue:
  """Overwrites the oldest batch of the queue.

  Args:
    queue: of batches of B keys.
    key: float32 [B, dim], unit length; no gradient flows into the queue.
    ids: int32 [B].
    valid: bool [B]; what other rows would overwrite stays in its place.

  Returns:
    The queue after this step.
  """
  key = jax.lax.stop_gradient(key)
  key = jnp.where(valid[:, None], key, queue.keys[queue.cursor])
  ids = jnp.where(valid, ids, queue.ids[queue.cursor])
  return Queue(
    keys=_constrain(queue.keys.at[queue.cursor].set(key), 1),
    ids=_constrain(queue.ids.at[queue.cursor].set(ids), 1),
    cursor=(queue.cursor + 1) % len(queue.keys),
  )


def score_negatives(
  query: jax.Array,
  queue: Queue,
  ids: jax.Array,
  *,
  temperature: float = 0.1,
) -> Negatives:
  """Compares queries with the queue, leaving out keys of the query's own video.

  The result serves every loss term with these negatives.

  Args:
    query: float32 [B, dim], unit length.
    queue: any queue, e.g. of the other modality; a constant for gradients.
    ids: int32 [B], videos of the queries; those of `EMPTY` leave out nothing.
    temperature: divides similarities.
  """
  keys = jax.lax.stop_gradient(queue.keys)
  query = _constrain(query, None)  # all queries to every device
  ids = _constrain(ids, None)
  similarity = jnp.einsum("bd,snd->bsn", query, keys, precision=_HIGHEST)
  same_video = (ids[:, None, None] == queue.ids) & (queue.ids != EMPTY)
  logits = jnp.where(same_video, _MASKED, similarity / temperature)
  logits = _constrain(logits, 2)  # they stay where the keys are
  top = jax.lax.stop_gradient(logits).max((1, 2))
  total = jnp.exp(logits - top[:, None, None]).sum((1, 2))
  count = jnp.maximum((~same_video).sum((1, 2)), 1)
  mean = jnp.where(same_video, 0, similarity).sum((1, 2)) / count
  results = top + jnp.log(total), top * temperature, jax.lax.stop_gradient(mean)
  return Negatives(*(_constrain(value, 0) for value in results))


def info_nce(
  query: jax.Array,
  key: jax.Array,
  negatives: Negatives,
  valid: jax.Array,
  *,
  temperature: float = 0.1,
) -> Contrast:
  """Cross-entropy of finding the positive among the negatives (van den Oord, 2018).

  -log(exp(q.k / t) / (exp(q.k / t) + sum_i exp(q.n_i / t))), as in MoDist, Eq. 1 to 3.

  Args:
    query: float32 [B, dim], unit length.
    key: float32 [B, dim], unit length, the positive of each query; a constant.
    negatives: from `score_negatives` of the same queries and temperature.
    valid: bool [B]; keys of other rows do not count in `batch_accuracy`.
    temperature: divides similarities.
  """
  positive = (query * jax.lax.stop_gradient(key)).sum(-1)
  logit = positive / temperature
  loss = jnp.logaddexp(logit, negatives.log_sum) - logit
  return Contrast(
    loss=loss,
    accuracy=(positive > negatives.highest).astype(jnp.float32),
    batch_accuracy=is_nearest_key(query, key, valid).astype(jnp.float32),
    positive=jax.lax.stop_gradient(positive),
    negative=negatives.mean,
  )


def is_nearest_key(query: jax.Array, key: jax.Array, valid: jax.Array) -> jax.Array:
  """Whether, of the keys of its own batch, its own is the most similar to a query.

  Keys of one batch come from the same weights. Those of a queue are older, which alone
  can tell them from the positive while the network changes fast.

  Args:
    query, key: float32 [B, dim], unit length, of the same videos row by row.
    valid: bool [B]; other keys are no candidates.

  Returns:
    bool [B].
  """
  key = _constrain(key, None)  # all keys of the batch to every device
  similarity = jnp.matmul(query, key.T, precision=_HIGHEST)
  similarity = jnp.where(valid, similarity, -jnp.inf)
  return similarity.argmax(1) == jnp.arange(len(query))


def spread(embedding: jax.Array, valid: jax.Array) -> jax.Array:
  """Standard deviation of [B, dim] over the rows where `valid`, in all directions."""
  embedding = jax.lax.stop_gradient(embedding)
  weight = valid.astype(jnp.float32)[:, None] / jnp.maximum(valid.sum(), 1)
  deviation = embedding - (weight * embedding).sum(0)
  variance = (weight * jnp.square(deviation)).sum(0)
  return jnp.sqrt(variance.sum())


def fill_and_age(queue: Queue) -> tuple[jax.Array, jax.Array]:
  """Share of the queue's keys that are of videos, and how many steps old these are."""
  slots = len(queue.ids)
  age = (queue.cursor - 1 - jnp.arange(slots)) % slots + 1
  real = (queue.ids != EMPTY).astype(jnp.float32).mean(1)
  return real.mean(), (age * real).sum() / jnp.maximum(real.sum(), 1e-6)


def _constrain(array, axis):
  """Splits one axis over the devices that the program is for, or none."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or (axis is not None and array.shape[axis] % mesh.size):
    return array
  return jax.lax.with_sharding_constraint(array, _split(axis))


def _split(axis):
  return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data")
