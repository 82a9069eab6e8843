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
    own = {name: values[rows] for name, values in maps.items()}
    shares.add(own, *motion_share.moving_pixels(speed[rows]))
  found = shares.result()
  assert found["clips"] == 6
  assert found["seeing"] == 1
  # Masks are of one size. The mean map is that of the other clips.
  others = [np.delete(chosen, row, 0).mean(0) for row in range(6)]
  gains = [1 - m[mask].sum() / m.sum() for m, mask in zip(others, chosen, strict=True)]
  place = 1 - np.mean(gains)
  assert found["seeing/position"] == pytest.approx(place)
  assert found["seeing/gain"] == pytest.approx(1 - place)
  assert found["seeing/gain_error"] == pytest.approx(np.std(gains, ddof=1) / 6**0.5)
  assert found["blind"] == pytest.approx(0.2)
  assert found["blind/position"] == pytest.approx(0.2)
  assert found["blind/gain"] == pytest.approx(0, abs=1e-12)
  assert found["seeing/pointing"] == 1
  assert found["blind/pointing"] == pytest.approx(0.2)


def test_still_clips_and_empty_maps_do_not_count_for_any_network():
  speed = np.random.default_rng(0).random((3, 2, 10, 10))
  speed[0] *= 0.01
  maps = {"a": np.ones(speed.shape), "b": np.ones(speed.shape)}
  maps["b"][1] = 0
  shares = motion_share.MotionShares()
  shares.add(maps, *motion_share.moving_pixels(speed))
  found = shares.result()
  assert (found["clips"], found["still_clips"], found["empty_maps"]) == (1, 1, 1)
  assert "a/gain" not in found  # there is no other clip
  assert found["a"] == pytest.approx(0.2)


def test_the_pointing_game_asks_of_every_moving_frame_where_its_maximum_is():
  chosen = np.zeros((2, 3, 4, 4), bool)
  chosen[:, :2, 1, 1:3] = True
  maps = np.random.default_rng(0).random((2, 3, 4, 4))
  maps[0, 0, 1, 2] = maps[0, 1, 3, 3] = maps[0, 2, 1, 1] = 2  # a still frame
  maps[1, 0, 1, 1] = maps[1, 0, 0, 0] = maps[1, 1, 1, 1] = 2  # two largest values
  found = motion_share.points_inside(maps, chosen, chosen.any((2, 3)))
  np.testing.assert_allclose(found, [0.5, 0.75])
  nothing = motion_share.points_inside(maps, chosen & False, chosen[..., 0, 0])
  assert np.isnan(nothing).all()


def test_what_is_unlike_the_background_moves():
  rng = np.random.default_rng(0)
  background = rng.integers(80, 170, (2, 56, 56, 3), np.uint8)
  clips = np.repeat(background[:, None], 4, axis=1)
  clips = clips + rng.integers(0, 8, clips.shape, np.uint8)  # noise
  clips[0, :, 2:4, 50:53] = 255  # too small beside what comes
  thing = np.zeros((4, 56, 56), bool)
  for frame in range(3):
    thing[frame, 10 + 5 * frame : 30 + 5 * frame, 12:22] = True
    thing[frame, 20:30, 36:46] = True  # half as large
  clips[0][thing] = 255 - 255 * (clips[0][thing] > 127)
  chosen, moves = motion_share.unlike_background(clips, background)
  assert moves.tolist() == [[True, True, True, False], [False] * 4]
  assert not chosen[1].any() and not (thing & ~chosen[0]).any()
  wider = np.zeros_like(thing)
  for down, across in np.ndindex(7, 7):
    wider |= np.roll(thing, (down - 3, across - 3), axis=(1, 2))
  assert not (chosen[0] & ~wider).any()
