"""The static mask of MoSI: only a box moves (Huang et al., CVPR 2021, section 3.3).

It comes after jitter and normalisation, so that the still surroundings are one
jittered frame while the inside of the box flickers with the jitter of every frame.
"""

import jax
import jax.numpy as jnp


def draw_mask(
  key: jax.Array,
  clips: int,
  *,
  frames: int,
  size: int,
  ratio: tuple[float | jax.Array, float | jax.Array],
) -> tuple[jax.Array, jax.Array]:
  """Draws the mask of each clip.

  Args:
    key: PRNG key.
    clips: number of clips P.
    frames: clip length T.
    size: side of the clips in pixels.
    ratio: range of the box's side as a fraction of `size`; may be traced.

  Returns:
    background: int32 [P] in [0, T).
    box: int32 [P, 3], (x, y, side) in pixels, inside the clip.
  """
  frame_key, side_key, place_key = jax.random.split(key, 3)
  background = jax.random.randint(frame_key, (clips,), 0, frames)
  low, high = ratio
  side = jax.random.uniform(side_key, (clips,), minval=low, maxval=high) * size
  side = side.astype(jnp.int32)[:, None]
  place = jax.random.randint(place_key, (clips, 2), 0, size - side + 1)
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
