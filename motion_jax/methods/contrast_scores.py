"""The InfoNCE terms of MoDist, and what tells of their health.

Xiao, Tighe, Modolo, MoDist: Motion Distillation for Self-supervised Video
Representation Learning, 2021, Eq. 1 to 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from clu import metrics
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.ops import contrast


class Term(NamedTuple):
  """One InfoNCE term: which queries look for which keys among which negatives."""

  name: str
  query: str
  key: str
  negatives: str
  weight: float


class ContrastScores:
  """Scores queries against keys and queues, by the terms that a config switches on.

  Args:
    method: a config's section: `loss_visual`, `loss_motion`, `loss_cross` (weights; 0
      is off), `cross_negatives`, `temperature`.
    mesh: whose devices split rows and queues.

  Raises:
    UserError: for weights with which the visual network learns nothing.
  """

  def __init__(self, method: ConfigDict, mesh: Mesh):
    if method.temperature <= 0:
      raise UserError(f"method.temperature={method.temperature} must be positive")
    self.terms = _terms(method)
    used = {name for term in self.terms for name in (term.query, term.key)}
    self.modalities = [name for name in ("visual", "motion") if name in used]
    self._temperature, self._mesh = method.temperature, mesh

  def metrics(self) -> type[metrics.Collection]:
    """Means over videos: losses, accuracies and similarities of every term.

    `<term>_accuracy` is the share of queries closer to their key than to all negatives,
    `<term>_batch_accuracy` of those closer to it than to the other keys of the batch.
    `<modality>_spread` is the standard deviation of the queries over a batch, 1 if they
    are spread evenly over the sphere, 0 if they have collapsed; where a norm ends the
    projection it hides a collapse, which `<modality>_feature_spread` then shows, the
    same of the encoder's features. `queue_fill` is the share of keys that are of
    videos; `queue_age` their mean age in batches, or parts of batches; `pass_rate` the
    share of a video's motion windows above the motion threshold, `fallback` that of
    videos without any.

    In evaluation a batch is `eval.batch_size` videos on any number of devices: that
    number is part of what `batch_accuracy` and the spreads mean, of no other metric.
    """
    names = ["loss", "pretext_accuracy"]
    for kind in ("loss", "accuracy", "batch_accuracy", "positive", "negative"):
      names += [f"{term.name}_{kind}" for term in self.terms]
    for kind in ("spread", "feature_spread"):
      names += [f"{name}_{kind}" for name in self.modalities]
    names += ["queue_fill", "queue_age"]
    if "motion" in self.modalities:
      names += ["pass_rate", "fallback"]
    return metrics.Collection.create(
      **{name: metrics.Average.from_output(name) for name in names}
    )

  def __call__(self, queries: dict, keys: dict, queues: dict, ids, batch: dict) -> dict:
    """Scores a batch.

    Args:
      queries, keys: [B, dim] of unit length, by modality.
      queues: by modality, as they are before these keys enter.
      ids: int32 [B], videos of the queries; those of `contrast.EMPTY` have all keys as
        negatives.
      batch: `valid` and `pass_rate` of the sampler's arrays.

    Returns:
      What `metrics` needs but `<modality>_feature_spread`, all [B].
    """
    mask = batch["valid"]
    outputs = {"mask": mask, "loss": jnp.zeros(len(mask))}
    hits, scored = [], {}
    with jax.named_scope("contrast"):
      for name, query, key, negatives, weight in self.terms:
        if (query, negatives) not in scored:
          scored[query, negatives] = contrast.score_negatives(
            queries[query],
            queues[negatives],
            ids,
            temperature=self._temperature,
            mesh=self._mesh,
          )
        found = scored[query, negatives]
        term = contrast.info_nce(
          queries[query], keys[key], found, temperature=self._temperature
        )
        hits.append(term.correct.astype(jnp.float32))
        outputs["loss"] += weight * term.loss
        outputs[f"{name}_loss"] = term.loss
        outputs[f"{name}_accuracy"] = hits[-1]
        outputs[f"{name}_batch_accuracy"] = contrast.is_nearest_key(
          queries[query], keys[key], mask, mesh=self._mesh
        ).astype(jnp.float32)
        outputs[f"{name}_positive"] = term.positive
        outputs[f"{name}_negative"] = found.mean
    outputs["pretext_accuracy"] = jnp.stack(hits).mean(0)
    outputs["pass_rate"] = batch["pass_rate"]
    outputs["fallback"] = (batch["pass_rate"] == 0).astype(jnp.float32)
    shared = {f"{name}_spread": spread(query, mask) for name, query in queries.items()}
    shared["queue_fill"], shared["queue_age"] = fill_and_age(queues["visual"])
    return outputs | {k: jnp.full(len(mask), value) for k, value in shared.items()}


def spread(embedding: jax.Array, mask: jax.Array) -> jax.Array:
  """Standard deviation of [B, dim] over the rows where `mask`, over all directions."""
  embedding = jax.lax.stop_gradient(embedding)
  weight = mask.astype(jnp.float32)[:, None] / jnp.maximum(mask.sum(), 1)
  deviation = embedding - (weight * embedding).sum(0)
  variance = (weight * jnp.square(deviation)).sum(0)
  return jnp.sqrt(variance.sum())


def fill_and_age(queue: contrast.Queue) -> tuple[jax.Array, jax.Array]:
  """Share of the queue's keys that are of videos, and how many steps old these are."""
  slots = len(queue.ids)
  age = (queue.cursor - 1 - jnp.arange(slots)) % slots + 1
  real = (queue.ids != contrast.EMPTY).astype(jnp.float32).mean(1)
  return real.mean(), (age * real).sum() / jnp.maximum(real.sum(), 1e-6)


def _terms(method):
  """The terms that a config's weights switch on (Eq. 1 to 3)."""
  choose("method.cross_negatives", method.cross_negatives, ("query", "key"))
  weights = dict(
    visual=method.loss_visual, motion=method.loss_motion, cross=method.loss_cross
  )
  if min(weights.values()) < 0 or not weights["visual"] + weights["cross"]:
    raise UserError(
      "method.loss_visual, loss_motion and loss_cross must not be negative, and the "
      "visual network must learn: set loss_visual or loss_cross above 0"
    )
  terms = []
  for query, key in (
    ("visual", "visual"),
    ("motion", "motion"),
    ("visual", "motion"),
    ("motion", "visual"),
  ):
    name, weight = query, weights[query]
    if query != key:
      name, weight = f"{query}_to_{key}", weights["cross"]
    negatives = {"query": query, "key": key}[method.cross_negatives]
    if weight:
      terms.append(Term(name, query, key, negatives, weight))
  return terms
