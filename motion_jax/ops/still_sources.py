"""Still pictures out of clips: a square of one of their frames, for MoSI.

Contract: clips and extents are as in `crops`.
"""

import jax
import jax.numpy as jnp

from motion_jax.ops import crops


def draw_squares(
  key: jax.Array, extent: jax.Array, *, frames: int, largest: int
) -> tuple[jax.Array, jax.Array]:
  """A frame [B] of every clip, and the place [B, 4] of a square, as large as fits.

  Args:
    key: PRNG key.
    extent: int32 [B, 2].
    frames: length of the clips.
    largest: side in pixels that no frame exceeds.
  """
  frame_key, crop_key = jax.random.split(key)
  frame = jax.random.randint(frame_key, (len(extent),), 0, frames)
  return frame, crops.draw_crops(crop_key, extent, size=largest)


def cut_squares(
  video: jax.Array, extent: jax.Array, frame: jax.Array, box: jax.Array, *, side: int
) -> jax.Array:
  """[B, side, side, 3] uint8 of clips [B, T, H, W, 3]: resized squares of frames."""
  image = jnp.take_along_axis(video, frame.reshape(-1, 1, 1, 1, 1), axis=1)
  turned = crops.is_turned(extent, video.shape[2:4])
  image = crops.resize_crops(image, box, size=side, turned=turned)[:, 0]
  return jnp.round(255 * image).astype(jnp.uint8)
