"""What tells of the health of MoDist's training."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from clu import metrics

from motion_jax.ops import contrast


class Embedded(NamedTuple):
  """What the networks make of clips, by modality."""

  query: dict[str, jax.Array]  # [B, dim] of unit length
  key: dict[str, jax.Array]
  features: dict[str, jax.Array]  # [B, features] of the queries' encoder


def collection(
  terms: Iterable[str], modalities: Iterable[str]
) -> type[metrics.Collection]:
  """Means over videos: losses, accuracies and similarities of every term.

  `<term>_accuracy` is the share of queries closer to their key than to all negatives,
  `<term>_batch_accuracy` of those closer to it than to the other keys of the batch:
  those of a queue are of older weights, which alone can tell them from the positive.
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
    names += [f"{term}_{kind}" for term in terms]
  for kind in ("spread", "feature_spread"):
    names += [f"{name}_{kind}" for name in modalities]
  names += ["queue_fill", "queue_age"]
  if "motion" in modalities:
    names += ["pass_rate", "fallback"]
  return metrics.Collection.create(
    **{name: metrics.Average.from_output(name) for name in names}
  )


def outputs(
  loss: jax.Array,
  terms: dict[str, contrast.Contrast],
  embedded: Embedded,
  queue: contrast.Queue,
  batch: dict,
) -> dict[str, jax.Array]:
  """What `collection` needs, all [B].

  Args:
    loss: [B].
    terms: by name, '<modality>' or '<modality of the query>_to_<of the key>'.
    embedded: queries, keys and features.
    queue: of visual keys, as it was for the loss.
    batch: `valid` and `pass_rate` of the sampler's arrays.
  """
  mask, rate = batch["valid"], batch["pass_rate"]
  found = {"mask": mask, "loss": loss}
  for name, term in terms.items():
    query, _, key = name.partition("_to_")
    nearest = contrast.is_nearest_key(
      embedded.query[query], embedded.key[key or query], mask
    )
    found |= {
      f"{name}_loss": term.loss,
      f"{name}_accuracy": term.correct.astype(jnp.float32),
      f"{name}_batch_accuracy": nearest.astype(jnp.float32),
      f"{name}_positive": term.positive,
      f"{name}_negative": term.negative,
    }
  hits = jnp.stack([found[f"{name}_accuracy"] for name in terms])
  found |= {"pretext_accuracy": hits.mean(0), "pass_rate": rate}
  found["fallback"] = (rate == 0).astype(jnp.float32)
  shared = dict(zip(("queue_fill", "queue_age"), fill_and_age(queue), strict=True))
  for name, query in embedded.query.items():
    features = contrast.normalize_embedding(embedded.features[name])
    shared[f"{name}_spread"] = spread(query, mask)
    shared[f"{name}_feature_spread"] = spread(features, mask)
  return found | {name: jnp.full(len(mask), value) for name, value in shared.items()}


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
