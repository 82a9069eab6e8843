"""Motion inputs: stored and computed, in every kind, aligned with the video."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.data import motion_codec
from motion_jax.ops import motion_inputs

WHOLE = jnp.array([[0, 0, 32, 48]], jnp.int32)


def moving_square(shift=3, height=32, width=48, margin=0):
  """(pairs [1, 2, 2, H, W, 3], mask of the square in frame t): it moves right."""
  rng = np.random.default_rng(0)
  ground = rng.integers(60, 120, (height, width, 3), np.uint8)
  square = rng.integers(120, 250, (14, 14, 3), np.uint8)
  pairs = np.zeros((1, 2, 2, height + margin, width + margin, 3), np.uint8)
  mask = np.zeros((height, width), bool)
  mask[9:23, 14:28] = True
  for frame in range(2):
    for time, left in enumerate((14, 14 + shift)):
      picture = ground.copy()
      picture[9:23, left : left + 14] = square
      pairs[0, frame, time, :height, :width] = picture
  return pairs, mask


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_stored_edges_come_back_on_their_scale_in_three_channels(scale):
  edges = np.random.default_rng(0).uniform(0, 10, (1, 3, 32, 48)).astype(np.float32)
  stored = motion_codec.encode(edges, "edges")[..., None]
  box = jnp.array([[4, 10, 20, 20]])
  options = dict(kind="edges", size=20, edge_scale=scale)
  found = motion_inputs.stored_motion(stored, box, **options)
  assert found.shape == (1, 3, 20, 20, 3)
  expected = edges[:, :, 4:24, 10:30, None] * (scale / 10)
  np.testing.assert_allclose(found, np.repeat(expected, 3, -1), atol=scale / 510 + 1e-5)


def test_stored_flow_comes_back_signed_and_zero_stays_zero():
  flow = np.random.default_rng(0).uniform(-25, 25, (1, 3, 32, 48, 2))
  flow[:, 0] = 0
  limit = motion_codec.LIMITS["flow"]
  stored = np.rint(np.clip(flow / limit, -1, 1) * 127 + 128).astype(np.uint8)
  found = motion_inputs.stored_motion(stored, WHOLE, kind="flow", size=32)
  assert found.shape == (1, 3, 32, 32, 2)
  assert float(jnp.abs(found[:, 0]).max()) < 1e-6
  box = jnp.array([[0, 8, 32, 32]])
  found = motion_inputs.stored_motion(stored, box, kind="flow", size=32)
  expected = np.clip(flow[:, :, :, 8:40] / limit, -1, 1)
  np.testing.assert_allclose(found, expected, atol=0.5 / 127 + 1e-5)


def test_frame_differences_are_signed_and_cropped():
  pairs, _ = moving_square()
  box, extent = jnp.array([[2, 5, 24, 24]]), jnp.array([[32, 48]])
  found = motion_inputs.computed_motion(
    pairs, extent, box, kind="frame_difference", size=24
  )
  difference = pairs[:, :, 0].astype(float) - pairs[:, :, 1]
  np.testing.assert_allclose(found, difference[:, :, 2:26, 5:29] / 255, atol=1e-5)
  assert float(found.min()) < -0.2 < 0.2 < float(found.max())


@pytest.fixture(scope="module")
def computed():
  """(pairs, extent) -> flow and edges [1, 2, 32, 32, C] of columns 5 to 36."""
  box = jnp.array([[0, 5, 32, 32]])

  @jax.jit  # once for all tests
  def compute(pairs, extent):
    return [
      motion_inputs.computed_motion(pairs, extent, box, kind=kind, size=32)
      for kind in ("flow", "edges")
    ]

  return compute


@pytest.mark.slow
def test_computed_motion_lies_on_the_moving_square_and_not_on_the_videos_border(
  computed,
):
  pairs, mask = moving_square(margin=16)
  flow, edges = jax.device_get(computed(pairs, jnp.array([[32, 48]])))
  inside = mask[:, 5:37]
  across = flow[0, :, :, :, 0] * motion_codec.LIMITS["flow"]
  assert abs(np.median(across[:, inside]) - 3) < 0.3
  assert abs(np.median(across[:, ~inside])) < 0.2
  around = np.zeros_like(inside)
  around[7:25, 7:25] = True
  around[11:21, 11:21] = False
  assert edges[0, 0, around, 0].mean() > 4 * edges[0, 0, ~around, 0].mean()
  assert edges.max() <= 1
  # The video ends at row 32 of a black canvas.
  assert edges[0, 0, -2:].mean() < 0.05


@pytest.mark.slow
def test_a_clip_that_could_not_be_decoded_has_no_motion(computed):
  pairs = np.zeros((1, 2, 2, 48, 64, 3), np.uint8)
  for motion in computed(pairs, jnp.zeros((1, 2), jnp.int32)):
    np.testing.assert_array_equal(motion, 0)
