"""The share of a map in moving pixels, and the means over clips."""

import numpy as np
import pytest

from motion_jax.evaluation.measures import motion_share


def test_the_fastest_fifth_of_every_frame_moves():
  speed = np.random.default_rng(0).random((3, 4, 10, 5))
  speed[1, 2] /= 2  # a frame that follows twice as soon
  speed[1, 1] = 0  # one that is repeated
  speed[2] *= 0.01
  chosen, moves = motion_share.moving_pixels(speed, share=0.2)
  assert moves.tolist() == [[True] * 4, [True, False, True, True], [False] * 4]
  assert (chosen.sum((2, 3)) == 10 * moves).all()
  for frame, mask in zip(speed.reshape(12, -1), chosen.reshape(12, -1), strict=True):
    assert not mask.any() or frame[mask].min() >= frame[~mask].max()


def test_the_mass_of_a_flat_map_in_moving_pixels_is_their_share():
  speed = np.random.default_rng(0).random((4, 2, 10, 10))
  speed[0, 1] = 0
  chosen, moves = motion_share.moving_pixels(speed)
  maps = np.ones((4, 2, 10, 10))
  maps[1] = chosen[1]
  maps[2] = ~chosen[2]
  maps[3] = 0
  found = motion_share.mass_inside(maps, chosen, moves)
  np.testing.assert_allclose(found[:3], [0.2, 1, 0])
  assert np.isnan(found[3])


def test_maps_that_follow_the_clip_gain_over_their_mean_map():
  rng = np.random.default_rng(0)
  speed = rng.random((6, 2, 10, 10))
  chosen, _ = motion_share.moving_pixels(speed)
  maps = {"seeing": chosen + 0.0, "blind": np.ones(speed.shape)}
  shares = motion_share.MotionShares()
  for rows in (slice(0, 4), slice(4, 6)):
    shares.add({name: values[rows] for name, values in maps.items()}, speed[rows])
  found = shares.result()
  assert found["clips"] == 6
  assert found["seeing"] == 1
  # The mean map is the mean of the masks, all of one size.
  mean = chosen.mean(0) / chosen.mean(0).sum()
  place = np.mean([mean[mask].sum() for mask in chosen])
  assert found["seeing/position"] == pytest.approx(place)
  assert found["seeing/gain"] == pytest.approx(1 - place)
  assert found["blind"] == pytest.approx(0.2)
  assert found["blind/position"] == pytest.approx(0.2)
  assert found["blind/gain"] == pytest.approx(0, abs=1e-12)


def test_still_clips_and_empty_maps_do_not_count_for_any_network():
  speed = np.random.default_rng(0).random((3, 2, 10, 10))
  speed[0] *= 0.01
  maps = {"a": np.ones(speed.shape), "b": np.ones(speed.shape)}
  maps["b"][1] = 0
  shares = motion_share.MotionShares()
  shares.add(maps, speed)
  found = shares.result()
  assert (found["clips"], found["still_clips"], found["empty_maps"]) == (1, 1, 1)
  assert found["a"] == pytest.approx(0.2)
