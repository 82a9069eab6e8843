"""Heads that stand on pooled features."""

import jax
import jax.numpy as jnp
from flax import nnx

from motion_jax.models import common


class Classifier(nnx.Module):
  """Dropout and one linear layer, with PyTorch's default initialisation.

  Args:
    dim: size of the features.
    classes: number of logits.
    dropout: probability to drop a feature in training mode, in [0, 1).
    rngs: the `params` stream draws weights and bias.

  Raises:
    ValueError: if `dropout` is outside [0, 1).
  """

  def __init__(self, dim: int, classes: int, *, dropout: float, rngs: nnx.Rngs):
    if not 0 <= dropout < 1:
      raise ValueError(f"dropout is {dropout}; expected a probability in [0, 1)")
    self.dropout = nnx.Dropout(dropout)
    self.kernel = nnx.Param(common.uniform_fan_in(rngs.params(), (dim, classes), dim))
    self.bias = nnx.Param(common.uniform_fan_in(rngs.params(), (classes,), dim))

  def __call__(self, features: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
    """Computes logits.

    Args:
      features: [..., dim] float.
      rngs: `nnx.Rngs(dropout=key)`; needed in training mode if dropout > 0.

    Returns:
      [..., classes] float32 logits.
    """
    features = self.dropout(features.astype(jnp.float32), rngs=rngs)
    return features @ self.kernel[...] + self.bias[...]
