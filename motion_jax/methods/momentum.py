"""A network with its momentum copy, which makes the keys of a contrast (MoCo).

He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from motion_jax import sharding
from motion_jax.models.common import call, split
from motion_jax.models.heads import Projection
from motion_jax.ops.contrast import normalize_embedding


class Embedder(nnx.Module):
  """An encoder and a projection: clips to embeddings of unit length."""

  def __init__(self, encoder: nnx.Module, *, rngs: nnx.Rngs, **projection):
    self.encoder = encoder
    self.projection = Projection(encoder.features, rngs=rngs, **projection)

  def __call__(self, clip: jax.Array) -> jax.Array:
    """Maps [B, T, H, W, C] to [B, dim] float32 of unit length."""
    return normalize_embedding(self.projection(self.encoder(clip)))


class MomentumPair:
  """A network that learns, and its slow copy.

  The copy has parameters of its own, which follow the network's, and BatchNorm
  statistics of its own, from its own forward passes. `aux` is a dict: `stats` of the
  network, `key_params` and `key_stats` of the copy.

  Args:
    build: makes the network from `nnx.Rngs`.
    momentum: share of the copy that an update keeps, in [0, 1].
    mesh: whose devices split the rows.
  """

  def __init__(
    self, build: Callable[[nnx.Rngs], Embedder], *, momentum: float, mesh: Mesh
  ):
    self._build, self._momentum, self._mesh = build, momentum, mesh
    self._graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

  def init(self, key: jax.Array) -> tuple[nnx.State, dict]:
    """Returns (params, aux); the copy starts equal to the network."""
    _, params, stats = split(self._build(nnx.Rngs(key)))
    copies = jax.tree.map(jnp.copy, (params, stats))
    return params, {"stats": stats, "key_params": copies[0], "key_stats": copies[1]}

  def embed_queries(self, params, aux, clip, *, train: bool) -> tuple[jax.Array, dict]:
    """Embeds clips with the network; returns ([B, dim], aux)."""
    query, stats = call(self._graphdef, params, aux["stats"], clip, train=train)
    return query, {**aux, "stats": stats}

  def embed_keys(
    self, aux, clip, *, train: bool, shuffle_key: jax.Array | None = None
  ) -> tuple[jax.Array, dict]:
    """Embeds clips with the copy, without a gradient; returns ([B, dim], aux).

    Args:
      aux: from `init`.
      clip: [B, T, H, W, C].
      train: use and track the batch's statistics.
      shuffle_key: if given, the rows pass the copy in random order, so that a key
        shares its BatchNorm group with other videos than its query (MoCo).
    """
    order = None
    if shuffle_key is not None:
      order = jax.random.permutation(shuffle_key, len(clip))
      clip = self._split(clip[order])
    params = jax.lax.stop_gradient(aux["key_params"])
    key, stats = call(self._graphdef, params, aux["key_stats"], clip, train=train)
    if order is not None:
      key = self._split(key[jnp.argsort(order)])
    return jax.lax.stop_gradient(key), {**aux, "key_stats": stats}

  def follow(self, params, aux) -> dict:
    """Moves the copy's parameters towards the network's: aux after an update."""
    moved = optax.incremental_update(params, aux["key_params"], 1 - self._momentum)
    return {**aux, "key_params": moved}

  def network(self, params, aux) -> Embedder:
    """The network that learns, in evaluation mode."""
    network = nnx.merge(self._graphdef, params, aux["stats"])
    network.eval()
    return network

  def _split(self, array):
    # XLA would otherwise leave the result of a gather on every device.
    rows = sharding.split_rows(self._mesh)
    return jax.lax.with_sharding_constraint(array, rows)
