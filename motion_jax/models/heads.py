"""Heads that stand on pooled features."""

import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx

from motion_jax.models import common
from motion_jax.models.batch_norm import BatchNorm
from motion_jax.models.precision import FLOAT32


class Linear(nnx.Module):
  """x @ kernel + bias in float32.

  Args:
    inputs, outputs: sizes.
    bias: True to draw it, a number to start from that one, False for none.
    std: of normally distributed weights; None for PyTorch's default initialisation,
      U(+-1/sqrt(inputs)), of the bias too.
    rngs: the `params` stream draws weights and bias.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    bias: bool | float = True,
    std: float | None = None,
    rngs: nnx.Rngs,
  ):
    def uniform(*shape):  # PyTorch's default
      return common.uniform_fan_in(rngs.params(), shape, inputs)

    if std is None:
      kernel = uniform(inputs, outputs)
    else:
      kernel = std * jax.random.normal(rngs.params(), (inputs, outputs))
    self.kernel = nnx.Param(kernel)
    first = uniform(outputs) if bias is True else jnp.full(outputs, bias, jnp.float32)
    self.bias = None if bias is False else nnx.Param(first)

  def __call__(self, x: jax.Array) -> jax.Array:
    x = jnp.matmul(x, self.kernel[...], precision=FLOAT32)
    return x if self.bias is None else x + self.bias[...]


class Classifier(Linear):
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
    super().__init__(dim, classes, rngs=rngs)
    self.dropout = nnx.Dropout(dropout)

  def __call__(self, features: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
    """Computes logits.

    Args:
      features: [..., dim] float.
      rngs: `nnx.Rngs(dropout=key)`; needed in training mode if dropout > 0.

    Returns:
      [..., classes] float32 logits.
    """
    return super().__call__(self.dropout(features.astype(jnp.float32), rngs=rngs))


class Headed(nnx.Module):
  """An encoder and heads, which all get its features."""

  def __init__(self, encoder: nnx.Module, heads: Iterable[nnx.Module]):
    self.encoder, self.heads = encoder, nnx.List(heads)

  def __call__(self, video: jax.Array, rngs: nnx.Rngs | None = None) -> list[jax.Array]:
    """[B, T, H, W, C] normalised video -> [B, outputs] float32 of every head."""
    features = self.encoder(video)
    return [head(features, rngs=rngs) for head in self.heads]


def place_features(activation: jax.Array, window: tuple[int, int]) -> jax.Array:
  """Features at every place: means over all frames and a window around the place.

  As SlowFast pools in a test: its window is what pools the smaller training crops.

  Args:
    activation: [B, T, H, W, dim], what is pooled.
    window: height and width; where the activation is smaller, all of it.

  Returns:
    [B, places, dim] float32.
  """
  frame = activation.astype(jnp.float32).mean(1)
  height, width = map(min, window, frame.shape[1:3])
  sums = jax.lax.reduce_window(
    frame, 0.0, jax.lax.add, (1, height, width, 1), (1, 1, 1, 1), "valid"
  )
  return sums.reshape(len(sums), -1, sums.shape[-1]) / (height * width)


class Projection(nnx.Module):
  """Linear layers with ReLU between them, for contrastive losses.

  One layer is MoCo's first head (He et al., CVPR 2020), two its second (Chen et al.,
  2020), three those of SlowFast. Weights have PyTorch's default initialisation.

  Pooled features are all positive, and those of random networks differ little from clip
  to clip, so that all embeddings lie close together at first. Batch normalisation at
  the end spreads them over the sphere (SimCLR's and MoCo v3's heads end so).

  Args:
    dim: size of the features.
    outputs: size of the embedding.
    layers: number of linear layers, at least 1.
    hidden: size between the layers; None for `dim`.
    norm: batch normalisation at the end.
    bn_groups: its groups, as in `batch_norm.BatchNorm`.
    rngs: the `params` stream draws weights and biases.

  Raises:
    ValueError: if there are no layers.
  """

  def __init__(
    self,
    dim: int,
    outputs: int = 128,
    *,
    layers: int = 2,
    hidden: int | None = None,
    norm: bool = False,
    bn_groups: int = 1,
    rngs: nnx.Rngs,
  ):
    if layers < 1:
      raise ValueError(f"a projection has {layers} layers; expected 1 or more")
    sizes = [dim, *[hidden or dim] * (layers - 1), outputs]
    pairs = [*itertools.pairwise(sizes)]
    self.layers = nnx.List([Linear(*pair, rngs=rngs) for pair in pairs[:-1]])
    # A bias before the norm would do nothing.
    self.layers.append(Linear(*pairs[-1], bias=not norm, rngs=rngs))
    end = BatchNorm(outputs, eps=1e-5, groups=bn_groups) if norm else None
    self.norm = end  # nnx refuses None first and a module then

  def __call__(self, features: jax.Array) -> jax.Array:
    """Maps features [B, dim] to embeddings [B, outputs] float32, any length."""
    x = features.astype(jnp.float32)
    for index, layer in enumerate(self.layers):
      x = layer(nnx.relu(x) if index else x)
    return self.norm(x) if self.norm else x
