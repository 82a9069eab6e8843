"""What the motion network of MoDist sees (Xiao et al., 2021, section 3.2, Table 3b).

Contract: stored motion is uint8 [B, M, H, W, 1] (edges) or [B, M, H, W, 2] (flow), in
the top left part of a canvas like the video it belongs to; pairs are uint8
[B, M, 2, H, W, 3], the frames t and t - n. A box is int32 [B, 4], (top, left, height,
width), one for all frames of a clip; `extent` int32 [B, 2] is what of the canvas holds
the video. Results are float32 [B, M, size, size, C]; C is in `CHANNELS`.
"""

import jax
import jax.numpy as jnp

from motion_jax.ops import crops
from motion_jax.ops.flow import variational_flow
from motion_jax.ops.flow_edges import LIMIT, flow_edges

CHANNELS = {"edges": 3, "flow": 2, "frame_difference": 3}
# Stored flow is rint(v / FLOW_LIMIT * 127) + 128, v clipped to +-FLOW_LIMIT pixels; the
# network sees v / FLOW_LIMIT.
FLOW_LIMIT = 20.0


def stored_motion(
  stored: jax.Array, box: jax.Array, *, kind: str, size: int, edge_scale: float = 1.0
) -> jax.Array:
  """Cuts a crop out of prepared motion frames, and undoes their 8-bit encoding.

  Args:
    stored: uint8 [B, M, H, W, 1 or 2], see the module.
    box: int32 [B, 4].
    kind: 'edges' or 'flow'.
    size: side of the result in pixels.
    edge_scale: edges are in [0, edge_scale].

  Returns:
    Edges, three times the same channel, or flow in [-1, 1], u and v.

  Raises:
    ValueError: if the stored channels are those of another kind.
  """
  expected = {"edges": 1, "flow": 2}.get(kind)
  if stored.shape[-1] != expected:
    raise ValueError(
      f"motion frames have {stored.shape[-1]} channels, {kind!r} has {expected}: "
      "prepare a motion data set of this kind"
    )
  # Decoding is linear, so it may follow the interpolation.
  clip = crops.resize_crops(stored, box, size=size)
  if kind == "flow":
    return jnp.clip((255 * clip - 128) / 127, -1, 1)
  return _as_colour(clip * edge_scale)


def decode_flow(stored: jax.Array) -> jax.Array:
  """Stored flow [..., 2] uint8 to float32 pixels of the stored resolution."""
  return (stored.astype(jnp.float32) - 128) * (FLOW_LIMIT / 127)


def computed_motion(
  pairs: jax.Array,
  extent: jax.Array,
  box: jax.Array,
  *,
  kind: str,
  size: int,
  edge_scale: float = 1.0,
  **solver,
) -> jax.Array:
  """Computes the motion of frame pairs on the device, then cuts a crop out of it.

  The flow sees whole frames, so that what enters a crop is seen to move too.

  Args:
    pairs: uint8 [B, M, 2, H, W, 3], frames t and t - n.
    extent: int32 [B, 2].
    box: int32 [B, 4].
    kind: a key of `CHANNELS`; 'frame_difference' is frame t minus frame t - n, in
      [-1, 1], the others as in `stored_motion`.
    size: side of the result in pixels.
    edge_scale: edges are in [0, edge_scale].
    **solver: options of `variational_flow`.
  """
  if kind == "frame_difference":
    both = pairs.reshape(len(pairs), -1, *pairs.shape[3:])
    both = crops.resize_crops(both, box, size=size)
    both = both.reshape(*pairs.shape[:3], *both.shape[2:])
    return both[:, :, 0] - both[:, :, 1]
  flow = flow_of_pairs(pairs, extent, **solver)
  if kind == "flow":
    flow = jnp.clip(flow / FLOW_LIMIT, -1, 1)
    return crops.resize_crops(flow, box, size=size)
  edges = flow_edges(flow)[..., None] * (edge_scale / LIMIT)
  return _as_colour(crops.resize_crops(edges, box, size=size))


def flow_of_pairs(pairs: jax.Array, extent: jax.Array, **solver) -> jax.Array:
  """Flow from the first to the second frame of every pair.

  What lies beyond the extent repeats the last row and column of the video, so that no
  edge arises there.

  Args:
    pairs: uint8 [B, M, 2, H, W, 3].
    extent: int32 [B, 2].
    **solver: options of `variational_flow`.

  Returns:
    float32 [B, M, H, W, 2], pixels.
  """
  pairs = _extended(pairs, extent)
  # One frame number after the other: memory for B, not for B * M fields.
  flow = jax.lax.map(
    lambda pair: variational_flow(pair[:, 0], pair[:, 1], **solver),
    jnp.moveaxis(pairs, 1, 0),
  )
  return jnp.moveaxis(flow, 0, 1)


def _extended(pairs, extent):
  for axis, last in ((3, extent[:, 0] - 1), (4, extent[:, 1] - 1)):
    places = jnp.minimum(jnp.arange(pairs.shape[axis]), jnp.maximum(last, 0)[:, None])
    shape = [1] * pairs.ndim
    shape[0], shape[axis] = places.shape
    pairs = jnp.take_along_axis(pairs, places.reshape(shape), axis=axis)
  return pairs


def _as_colour(clip):
  """[..., 1] to [..., 3]: the first convolution has three input channels."""
  return jnp.broadcast_to(clip, (*clip.shape[:-1], 3))
