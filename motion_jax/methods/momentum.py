"""A network with its momentum copy, which makes the keys of a contrast (MoCo).

He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from motion_jax.models.common import call, split
from motion_jax.models.heads import Projection
from motion_jax.ops.contrast import normalize_embedding


class Embedder(nnx.Module):
  """An encoder and a projection: clips to embeddings of unit length."""

  def __init__(self, encoder: nnx.Module, *, rngs: nnx.Rngs, **projection):
    self.encoder = encoder
    self.projection = Projection(encoder.features, rngs=rngs, **projection)

  def __call__(self, clip: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, T, H, W, C] -> embeddings [B, dim] and features [B, features], float32."""
    features = self.encoder(clip)
    return normalize_embedding(self.projection(features)), features


class MomentumPair:
  """A network that learns, and its slow copy.

  `aux` is a dict: `stats` of the network, and `key_params` and `key_stats` of the copy,
  whose parameters follow the network's and whose BatchNorm statistics are of its own
  forward passes.

  A key must not share its BatchNorm group with the same videos as its query, or their
  common statistics tell which belong together. MoCo therefore sends keys through the
  copy in random order. Here the copy's groups are other ones instead, dealt out among
  some neighbours (see `batch_norm.BatchNorm`), and every clip stays on its device.

  Args:
    build: makes the network from `nnx.Rngs`.
    momentum: share of the copy that an update keeps, in [0, 1].
    regroup: give the copy other BatchNorm groups.
  """

  def __init__(
    self, build: Callable[[nnx.Rngs], Embedder], *, momentum: float, regroup: bool
  ):
    self._build, self._momentum = build, momentum
    network = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    self._graphdef = nnx.graphdef(network)
    # Some networks have no BatchNorm.
    network.set_attributes(raise_if_not_found=False, interleaved=regroup)
    self._key_graphdef = nnx.graphdef(network)

  def init(self, key: jax.Array) -> tuple[nnx.State, dict]:
    """Returns (params, aux); the copy starts equal to the network."""
    return _with_copy(self._build(nnx.Rngs(key)))

  def embed_queries(self, params, aux, clip, *, train: bool):
    """Embeds clips with the network; returns ((embeddings, features), aux)."""
    both, stats = call(self._graphdef, params, aux["stats"], clip, train=train)
    return both, {**aux, "stats": stats}

  def embed_keys(self, aux, clip, *, train: bool) -> tuple[jax.Array, dict]:
    """Embeds clips with the copy, without a gradient; returns ([B, dim], aux)."""
    copy = jax.lax.stop_gradient(aux["key_params"]), aux["key_stats"]
    (key, _), stats = call(self._key_graphdef, *copy, clip, train=train)
    return jax.lax.stop_gradient(key), {**aux, "key_stats": stats}

  def follow(self, params, aux) -> dict:
    """Moves the copy's parameters towards the network's: aux after an update."""
    moved = optax.incremental_update(params, aux["key_params"], 1 - self._momentum)
    return {**aux, "key_params": moved}

  def with_encoder(self, params, aux, encoder) -> tuple[nnx.State, dict]:
    """(params, aux) with the arrays of another encoder, also in the copy."""
    network = self.network(params, aux)
    nnx.update(network.encoder, nnx.state(encoder))
    return _with_copy(network)

  def network(self, params, aux) -> Embedder:
    """The network that learns, in evaluation mode."""
    network = nnx.merge(self._graphdef, params, aux["stats"])
    network.eval()
    return network


def _with_copy(network):
  _, params, stats = split(network)
  copies = jax.tree.map(jnp.copy, (params, stats))
  return params, {"stats": stats, "key_params": copies[0], "key_stats": copies[1]}
