"""Where a video network looks: Grad-CAM and attention maps.

Contract: activations are [B, T', H', W', D]; maps are float32 [B, T', H', W'], 0 or
more, until `upsample` brings them to the size of the clip. They belong to one example
each, so networks must be in evaluation mode.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx


def gradcam(
  score: Callable[[jax.Array], jax.Array],
  activation: jax.Array,
  *,
  per_frame: bool = True,
) -> jax.Array:
  """Channels weighted by what they add to a score (Selvaraju et al., ICCV 2017).

  Args:
    score: maps the activation to scores [B].
    activation: [B, T', H', W', D] of a stage.
    per_frame: the weight of a channel is the mean gradient of each frame, as in
      SlowFast's code; False: of the whole clip.

  Returns:
    [B, T', H', W'] float32: the weighted sum of the channels where it is positive.
  """
  gradient = jax.grad(lambda a: score(a).astype(jnp.float32).sum())(activation)
  axes = (2, 3) if per_frame else (1, 2, 3)
  weights = gradient.astype(jnp.float32).mean(axes, keepdims=True)
  return nnx.relu((weights * activation.astype(jnp.float32)).sum(-1))


def class_maps(
  encoder: nnx.Module,
  heads: Sequence[Callable[[jax.Array], jax.Array]],
  video: jax.Array,
  *,
  stage: str = "conv5",
  still: Sequence[int] | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Grad-CAM of the logits of the predicted classes, or of 'something moves'.

  Args:
    encoder: with `until` and `after`, such as those of `models.build_model`.
    heads: classifiers, features [B, D] -> logits [B, classes]; the logits of several
      (MoSI with a label per axis) are added.
    video: [B, T, H, W, C] normalised.
    stage: one of `models.stages.STAGES`, which is looked at.
    still: the class of every head that stands still. What is explained is then the
      log odds of all other classes against it, of several heads (motion along x and
      along y) the sum of theirs: the evidence for 'nothing moves' lies where nothing
      does, and a clip that is taken for still would show that.

  Returns:
    maps: [B, T', H', W'] float32.
    labels: int [B, heads], the predicted classes.
  """
  activation = encoder.until(video, stage)

  def logits(activation):
    features = encoder.after(activation, stage)
    return [head(features).astype(jnp.float32) for head in heads]

  labels = jnp.stack([head.argmax(-1) for head in logits(activation)], -1)

  def score(activation):
    scores = logits(activation)
    if still is not None:
      return sum(map(_odds_against, scores, still))
    return sum(
      jnp.take_along_axis(head, labels[:, i : i + 1], axis=1)[:, 0]
      for i, head in enumerate(scores)
    )

  return gradcam(score, activation), labels


def _odds_against(logits: jax.Array, label: int) -> jax.Array:
  """Log odds [B] of all classes of [B, classes] but one."""
  others = jnp.delete(logits, label, axis=-1, assume_unique_indices=True)
  return nnx.logsumexp(others, axis=-1) - logits[:, label]


def attention_maps(
  encoder: nnx.Module, video: jax.Array, *, stage: str = "conv5"
) -> jax.Array:
  """Attention of an encoder without a classifier (MAS, Wang et al., 2019, figure 6).

  The sum of squares over the channels (Zagoruyko, Komodakis, ICLR 2017), averaged over
  time as in the paper.

  Args:
    encoder: with `until`.
    video: [B, T, H, W, C] normalised.
    stage: one of `models.stages.STAGES`, which is looked at.

  Returns:
    [B, 1, H', W'] float32.
  """
  activation = encoder.until(video, stage).astype(jnp.float32)
  return (activation**2).sum(-1).mean(1, keepdims=True)


def upsample(maps: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Maps [B, T', H', W'] at the clip's size [B, *shape], (T, H, W): trilinear."""
  return jax.image.resize(maps, (len(maps), *shape), "trilinear", antialias=False)


def normalize(maps: jax.Array) -> jax.Array:
  """Scales every clip's maps [B, T, H, W] to [0, 1] by its smallest and largest."""
  low, high = (reduce((1, 2, 3), keepdims=True) for reduce in (maps.min, maps.max))
  return (maps - low) / (high - low + 1e-6)
