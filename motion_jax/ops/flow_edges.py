"""Flow edges: where optical flow changes in space (MoDist, Xiao et al., 2021).

Contract: flow is float [..., H, W, 2] in pixels (channel 0 to the right, 1 down);
edges are float32 [..., H, W] in [0, limit]. All functions work on single frames and on
any number of leading axes.
"""

import jax
import jax.numpy as jnp

from motion_jax.data.motion_codec import LIMITS

# MoDist, section 4.1: the edge maps are clamped to [0, 10].
LIMIT = LIMITS["edges"]


def flow_edges(flow: jax.Array, *, limit: float = LIMIT) -> jax.Array:
  """Strength of the edges of the flow magnitude.

  The Sobel operator of the magnitude sqrt(u^2 + v^2) as in OpenCV: 3x3, smoothing
  [1, 2, 1] and difference [-1, 0, 1] without normalisation (a slope of 1 gives 8),
  mirrored at the border without repeating the last pixel. The paper names no
  normalisation; a smaller gain would hardly ever reach its limit.

  Args:
    flow: [..., H, W, 2] float, pixels; H and W at least 2.
    limit: edges are clamped to [0, limit].

  Returns:
    [..., H, W] float32.
  """
  with jax.named_scope("flow_edges"):
    magnitude = jnp.sqrt(jnp.square(flow.astype(jnp.float32)).sum(-1))
    widths = [(0, 0)] * (magnitude.ndim - 2) + [(1, 1), (1, 1)]
    padded = jnp.pad(magnitude, widths, mode="reflect")
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    down = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    vertical = across[..., 2:, :] - across[..., :-2, :]
    horizontal = down[..., 2:] - down[..., :-2]
    edges = jnp.sqrt(jnp.square(horizontal) + jnp.square(vertical))
    return jnp.minimum(edges, limit)
