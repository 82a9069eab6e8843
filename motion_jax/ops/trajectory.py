"""Where the MoSI crop window is in each frame (Huang et al., CVPR 2021, eq. 2).

One axis at a time. `margin` is source side minus crop side, `speed` an integer in
[-steps, steps], `distance` a factor on the travelled distance (1 in evaluation).
A clip travels D = margin * speed / steps * distance, in equal parts, both ends
included; positions are truncated to whole pixels and lie in [0, margin].
Without `distance` everything is integer arithmetic and hence exact on any device:
margin * steps * (frames - 1) must stay below 2^30. Every argument but `frames` and
`steps` may be traced and broadcasts against the others.
"""

import jax
import jax.numpy as jnp

from motion_jax.ops.draws import integers
from motion_jax.ops.label_pool import LabelPool

# Added before truncation to a distance in float32, whose rounding may otherwise
# lose a whole pixel where the exact position is an integer.
TRUNCATION_GUARD = 5e-5


def start_range(
  margin: jax.Array, speed: jax.Array, *, steps: int, distance: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Returns the first and last start (inclusive, int32) that keep a path inside."""
  if distance is None:
    travel = margin * speed
    low = jnp.maximum(0, -travel) // steps
    high = jnp.minimum(margin * steps, margin * steps - travel) // steps
    return low, high
  travel = margin * speed / steps * distance
  low = jnp.maximum(0, -travel) + TRUNCATION_GUARD
  high = jnp.minimum(margin, margin - travel) + TRUNCATION_GUARD
  return low.astype(jnp.int32), high.astype(jnp.int32)


def centred_start(margin: jax.Array, speed: jax.Array, *, steps: int) -> jax.Array:
  """Returns the int32 start of the path in the middle of the margin (evaluation)."""
  return (margin * steps - margin * speed) // (2 * steps)


def positions(
  start: jax.Array,
  speed: jax.Array,
  *,
  margin: jax.Array,
  steps: int,
  frames: int,
  distance: jax.Array | None = None,
) -> jax.Array:
  """Returns the window's position in each frame.

  Args:
    start: int32 [...], pixels, in [0, margin].
    speed: int32 [...], in [-steps, steps].
    margin: int32 [...], source side minus crop side, pixels.
    steps: speeds per direction (K).
    frames: clip length T >= 2.
    distance: float32 [...] factor on the distance, or None for exactly 1.

  Returns:
    int32 [..., T] in [0, margin].
  """
  if frames < 2:
    raise ValueError(f"a moving clip needs 2 or more frames, found {frames}")
  start, speed, margin = (jnp.asarray(v)[..., None] for v in (start, speed, margin))
  frame = jnp.arange(frames, dtype=jnp.int32)
  parts = steps * (frames - 1)
  if distance is None:
    path = (start * parts + margin * speed * frame) // parts
  else:
    travel = margin * speed * jnp.asarray(distance)[..., None]
    path = jnp.floor(start + travel * frame / parts + TRUNCATION_GUARD)
  return jnp.clip(path, 0, margin).astype(jnp.int32)


def draw_windows(
  unit: jax.Array,
  extent: jax.Array,
  pool: LabelPool,
  *,
  frames: int,
  size: int,
  distance: tuple[float, float] | None,
  train: bool,
) -> jax.Array:
  """Draws a path for every class: a random square of the picture, a path inside it.

  Args:
    unit: float32 [P, 6] unit draws: two for the square, the distance and the start.
    extent: int32 [2], (height, width) of the picture; the square's side is the minimum.
    pool: the P motion classes.
    frames: clip length T.
    size: side of the crop window in pixels.
    distance: range of the factor on the distance, or None for exactly 1.
    train: random starts; otherwise centred paths. The square is random in both.

  Returns:
    int32 [P, T, 2], (x, y) of the window's top left corner in the picture.
  """
  corner_unit, distance_unit, start_unit = jnp.split(unit, 3, axis=-1)
  picture = extent[::-1]
  side = picture.min()
  corner = integers(corner_unit, 0, picture - side)
  path = dict(margin=jnp.maximum(side - size, 0), steps=pool.steps)
  speed = jnp.asarray(pool.speeds)
  if distance is not None:
    low, high = distance
    high = jnp.where(abs(speed) < pool.steps, high, min(high, 1.0))
    path["distance"] = low + (high - low) * distance_unit
  if train:
    start = integers(start_unit, *start_range(speed=speed, **path))
  else:
    start = centred_start(speed=speed, **path)
  offset = positions(start, speed, frames=frames, **path)
  return corner[:, None] + jnp.swapaxes(offset, 1, 2)
