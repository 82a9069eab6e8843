"""The static mask of MoSI: only a box moves (Huang et al., CVPR 2021, section 3.3).

It comes after jitter and normalisation, so that the still surroundings are one
jittered frame while the inside of the box flickers with the jitter of every frame.
"""

import jax
import jax.numpy as jnp

from motion_jax.ops.draws import integers


def draw_mask(
  unit: jax.Array,
  *,
  frames: int,
  size: int,
  ratio: tuple[float | jax.Array, float | jax.Array],
) -> tuple[jax.Array, jax.Array]:
  """Draws the mask of each of P clips.

  Args:
    unit: float32 [P, 4] unit draws: one for the frame and the side, two for the place.
    frames: clip length T.
    size: side of the clips in pixels.
    ratio: range of the box's side as a fraction of `size`; may be traced.

  Returns:
    background: int32 [P] in [0, T).
    box: int32 [P, 3], (x, y, side) in pixels, inside the clip.
  """
  background = integers(unit[:, 0], 0, frames - 1)
  low, high = ratio
  side = ((low + (high - low) * unit[:, 1:2]) * size).astype(jnp.int32)
  place = integers(unit[:, 2:], 0, size - side)
  return background, jnp.concatenate([place, side], axis=-1)


def apply_mask(clip: jax.Array, background: jax.Array, box: jax.Array) -> jax.Array:
  """Lets only a box move: outside it every frame shows one frame (section 3.3).

  Args:
    clip: [..., T, H, W, C].
    background: int32 [...], the frame shown outside the box.
    box: int32 [..., 3], (x, y, side) in pixels.

  Returns:
    [..., T, H, W, C].
  """
  left, top, side = (box[..., i, None] for i in range(3))
  column, row = jnp.arange(clip.shape[-2]), jnp.arange(clip.shape[-3])
  inside = ((row >= top) & (row < top + side))[..., :, None]
  inside &= ((column >= left) & (column < left + side))[..., None, :]
  index = background[..., None, None, None, None]
  frozen = jnp.take_along_axis(clip, index, axis=-4)
  return jnp.where(inside[..., None, :, :, None], clip, frozen)
