"""What tells of the health of MoDist's training, as means over videos.

Of every term of the loss, named by the modality of its query and, where that is another
one, after `_to_` by the one of its key:

  _loss, _positive, _negative: the loss, the similarity of keys and that of negatives.
  _accuracy: share of queries closer to their key than to all negatives; the mean over
    the terms is `pretext_accuracy`.
  _batch_accuracy: of those closer to it than to the other keys of the batch: those of
    a queue are of older weights, which alone can tell them from the positive.

Of every modality:

  _spread: standard deviation of the queries over a batch, 1 if they are spread evenly
    over the sphere, 0 if they have collapsed.
  _feature_spread: the same of the encoder's features, which shows a collapse that a
    norm at the end of the projection hides.

`queue_fill` is the share of visual keys in their queue that are of videos, `queue_age`
their mean age in batches, or parts of batches; `pass_rate` the share of a video's
motion windows above the motion threshold, `fallback` that of videos without any.

In evaluation a batch is `eval.batch_size` videos on any number of devices: that number
is part of what `_batch_accuracy` and the spreads mean, of no other metric.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from clu import metrics

from motion_jax.ops import contrast


def collection(
  terms: Iterable[str], modalities: Iterable[str]
) -> type[metrics.Collection]:
  """The metrics of a loss with these terms."""
  names = ["loss", "pretext_accuracy"]
  names += [f"{term}_{kind}" for kind in contrast.Contrast._fields for term in terms]
  for kind in ("spread", "feature_spread"):
    names += [f"{modality}_{kind}" for modality in modalities]
  names += ["queue_fill", "queue_age"]
  if "motion" in modalities:
    names += ["pass_rate", "fallback"]
  return metrics.Collection.create(
    **{name: metrics.Average.from_output(name) for name in names}
  )


def outputs(terms, queries, features, queue, batch) -> dict[str, jax.Array]:
  """What `collection` reads but the loss, float32 [B], and `mask`.

  Args:
    terms: {name: contrast.Contrast}.
    queries, features: [B, dim] and [B, features] of the same clips, by modality.
    queue: of visual keys, as it was for the loss.
    batch: the sampler's arrays.
  """
  mask, rate = batch["valid"], batch["pass_rate"]
  found = {"pass_rate": rate, "fallback": (rate == 0).astype(jnp.float32)}
  for name, term in terms.items():
    found |= {f"{name}_{kind}": value for kind, value in term._asdict().items()}
  accuracies = jnp.stack([term.accuracy for term in terms.values()])
  found |= {"pretext_accuracy": accuracies.mean(0), "mask": mask}
  shared = dict(
    zip(("queue_fill", "queue_age"), contrast.fill_and_age(queue), strict=True)
  )
  for name, query in queries.items():
    unit = contrast.normalize_embedding(features[name])
    shared[f"{name}_spread"] = contrast.spread(query, mask)
    shared[f"{name}_feature_spread"] = contrast.spread(unit, mask)
  return found | {name: jnp.full(len(mask), value) for name, value in shared.items()}
