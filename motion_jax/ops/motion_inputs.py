"""What the motion network of MoDist sees (Xiao et al., 2021, section 3.2, Table 3b).

Contract: stored motion is uint8 [B, M, H, W, 1] (edges) or [B, M, H, W, 2] (flow), in
a canvas like the video it belongs to; pairs are uint8 [B, M, 2, H, W, 3], the frames t
and t - n. Extents, boxes and turned video are as in `crops`; flow of turned video lies
turned, too, but u and v stay those of the video as it is seen. Results are float32
[B, M, size, size, C]; C is in `CHANNELS`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from motion_jax.data import motion_codec
from motion_jax.ops import crops
from motion_jax.ops.flow import luma, variational_flow
from motion_jax.ops.flow_edges import LIMIT, flow_edges

CHANNELS = {"edges": 3, "flow": 2, "frame_difference": 3}


def stored_motion(
  stored: jax.Array,
  box: jax.Array,
  *,
  kind: str,
  size: int,
  edge_scale: float = 1.0,
  turned: jax.Array | None = None,
) -> jax.Array:
  """Cuts a crop out of prepared motion frames, and undoes their 8-bit encoding.

  Args:
    stored: uint8 [B, M, H, W, 1 or 2], see the module.
    box: int32 [B, 4].
    kind: 'edges' or 'flow'.
    size: side of the result in pixels.
    edge_scale: edges are in [0, edge_scale].
    turned: bool [B], from `crops.is_turned`; None for none.

  Returns:
    Edges, three times the same channel, or flow in [-1, 1], u and v.
  """
  # Decoding is linear, so it may follow the interpolation.
  clip = crops.resize_crops(stored, box, size=size, turned=turned)
  if kind == "flow":
    return motion_codec.relative_flow(255 * clip)
  return _as_colour(clip * edge_scale)


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
  resize = partial(
    crops.resize_crops,
    box=box,
    size=size,
    turned=crops.is_turned(extent, pairs.shape[3:5]),
  )
  if kind == "frame_difference":
    both = pairs.reshape(len(pairs), -1, *pairs.shape[3:])
    both = resize(both)
    both = both.reshape(*pairs.shape[:3], *both.shape[2:])
    return both[:, :, 0] - both[:, :, 1]

  def cut(flow):
    if kind == "flow":
      motion = jnp.clip(flow / motion_codec.LIMITS["flow"], -1, 1)
    else:
      motion = flow_edges(flow)[..., None] * (edge_scale / LIMIT)
    return resize(motion[:, None])[:, 0]

  motion = flow_of_pairs(pairs, extent, then=cut, **solver)
  return motion if kind == "flow" else _as_colour(motion)


def flow_of_pairs(
  pairs: jax.Array,
  extent: jax.Array,
  *,
  then: Callable[[jax.Array], jax.Array] | None = None,
  **solver,
) -> jax.Array:
  """Flow from the first to the second frame of every pair.

  What lies beyond the extent repeats the last row and column of the video, so that no
  edge arises there.

  Args:
    pairs: uint8 [B, M, 2, H, W, 3].
    extent: int32 [B, 2].
    then: what to keep [B, ...] of the flow [B, H, W, 2] of a frame; None: all.
    **solver: options of `variational_flow`.

  Returns:
    float32 [B, M, H, W, 2], pixels, or [B, M, ...]; see the module for turned video.
  """
  canvas = pairs.shape[3:5]
  covered = crops.in_canvas(extent, canvas)
  turned = crops.is_turned(extent, canvas)[:, None, None, None]

  def of_frame(number):
    pair = jax.lax.dynamic_index_in_dim(pairs, number, 1, keepdims=False)
    pair = _extended(luma(pair), covered)
    flow = variational_flow(pair[:, 0], pair[:, 1], **solver)
    flow = jnp.where(turned, flow[..., ::-1], flow)
    return then(flow) if then else flow

  # One frame number after the other: memory for B, not for B * M fields.
  return jnp.moveaxis(jax.lax.map(of_frame, jnp.arange(pairs.shape[1])), 0, 1)


def _extended(pairs, extent):
  """Repeats the last row and column of [B, 2, H, W, 1].

  By selections, for TPUs are slow to gather.
  """
  for axis, size in ((2, extent[:, 0]), (3, extent[:, 1])):
    shape = [1] * pairs.ndim
    shape[axis] = -1
    place = jnp.arange(pairs.shape[axis]).reshape(shape)
    last = jnp.maximum(size - 1, 0).reshape(-1, *[1] * (pairs.ndim - 1))
    edge = jnp.where(place == last, pairs, 0).max(axis, keepdims=True)
    pairs = jnp.where(place < last, pairs, edge)
  return pairs


def _as_colour(clip):
  """[..., 1] to [..., 3]: the first convolution has three input channels."""
  return jnp.broadcast_to(clip, (*clip.shape[:-1], 3))
