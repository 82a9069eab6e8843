"""Colour jitter against golden numbers and its promises about randomness."""

import colorsys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.ops import augment

GOLDEN = np.load(Path(__file__).parent / "golden" / "mosi.npz")
ROWS = ["brightness", "contrast", "saturation", "hue"]
CASES = [
  *[f"{kind}_{name}" for kind in ("frame", "clip") for name in ROWS],
  *["gray", "extreme_brightness", "extreme_hue"],
  *[f"sequence{i}" for i in range(5)],
]


def jittered(key, video, **ranges):
  draws = augment.draw_jitter(key, video.shape[:-3], **ranges)
  return augment.apply_jitter(video, draws)


def _golden_clip(name):
  return jnp.asarray(GOLDEN[f"jitter/{name}"].transpose(1, 2, 3, 0))


def _steps(case):
  """Returns the golden (operation, factors) of a case in their order."""
  prefix = f"jitter/{case}/factor"
  keys = sorted(key for key in GOLDEN.files if key.startswith(prefix))
  return [(key.split("_")[-1], GOLDEN[key]) for key in keys]


def _starts_gray(case):
  return case in ("gray", "sequence3", "sequence4")


@pytest.mark.parametrize("case", CASES)
def test_single_operations_equal_the_golden_ones(case):
  video = _golden_clip("clip")
  if _starts_gray(case):
    video = augment.to_grayscale(video)
  for name, factor in _steps(case):
    video = augment.apply_jitter(video, _jitter([(name, factor)], len(video), False))
  expected = _golden_clip(f"{case}/output")
  np.testing.assert_allclose(video, expected, atol=2e-5, rtol=0)


def _jitter(steps, frames, grayscale):
  """Packs golden steps; operations that are missing become identities."""
  factors = np.ones((4, frames), np.float32)
  factors[augment.HUE] = 0
  order = [ROWS.index(name) for name, _ in steps]
  for name, factor in steps:
    factors[ROWS.index(name)] = factor
  order += [row for row in range(4) if row not in order]
  return augment.JitterFactors(
    jnp.asarray(factors), jnp.asarray(order, jnp.int32), jnp.asarray(grayscale)
  )


def test_a_batch_of_different_orders_equals_the_golden_sequences():
  video = _golden_clip("clip")
  cases = [case for case in CASES if not case.startswith("extreme")]
  draws = [_jitter(_steps(case), len(video), _starts_gray(case)) for case in cases]
  batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *draws)
  videos = jnp.broadcast_to(video, (len(cases), *video.shape))
  found = jax.jit(augment.apply_jitter)(videos, batch)
  expected = np.stack([_golden_clip(f"{case}/output") for case in cases])
  np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)


def test_hue_agrees_with_colorsys_on_every_corner_of_the_cube():
  levels = np.linspace(0, 1, 6)
  colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
  for shift in (-0.5, -0.25, -0.01, 0.0, 0.1, 1 / 3, 0.5):
    expected = []
    for colour in colours:
      hue, saturation, value = colorsys.rgb_to_hsv(*colour)
      expected.append(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value))
    video = jnp.asarray(colours, jnp.float32).reshape(1, 6, 36, 3)
    turn = _jitter([("hue", np.float32(shift))], 1, False)
    found = augment.apply_jitter(video, turn).reshape(-1, 3)
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


def _video(clips=3, frames=5):
  return jax.random.uniform(jax.random.key(7), (clips, frames, 12, 10, 3))


def test_full_jitter_stays_in_range_and_changes_every_frame_differently():
  still = jnp.repeat(_video(frames=1), 5, axis=1)
  result = np.asarray(jittered(jax.random.key(0), still, grayscale=0.0))
  assert result.min() >= 0 and result.max() <= 1
  change = abs(result[:, 1:] - result[:, :1]).mean((2, 3, 4))
  assert (change > 0.01).all()


def test_clip_wise_jitter_changes_all_frames_alike():
  still = jnp.repeat(_video(frames=1), 5, axis=1)
  result = jittered(jax.random.key(0), still, per_frame=False)
  np.testing.assert_array_equal(result, jnp.repeat(result[:, :1], 5, axis=1))
  assert abs(result - still).mean() > 0.05


def test_strength_zero_is_the_identity_and_may_be_traced():
  video = _video()
  jitter = jax.jit(
    lambda strength: jittered(jax.random.key(1), video, strength=strength)
  )
  np.testing.assert_allclose(jitter(0.0), video, atol=2e-6)
  weak, full = (abs(jitter(s) - video).mean() for s in (0.1, 1.0))
  assert 0 < 2 * weak < full


def test_factors_fill_their_ranges_and_strength_scales_them():
  draw = augment.draw_jitter(jax.random.key(2), (2000, 4))
  half = augment.draw_jitter(jax.random.key(2), (2000, 4), strength=0.5)
  for row, (centre, spread) in enumerate([(1, 0.5), (1, 0.5), (1, 0.5), (0, 0.25)]):
    deviation = draw.factors[:, row] - centre
    assert 0.99 * spread < abs(deviation).max() <= spread
    assert abs(deviation.mean()) < 0.02 * spread
    np.testing.assert_allclose(half.factors[:, row] - centre, deviation / 2, atol=1e-6)
  # 2000 draws at p = 0.3: four standard deviations are 0.041.
  assert abs(draw.grayscale.mean() - 0.3) < 0.041
  assert abs(half.grayscale.mean() - 0.15) < 0.041


def test_all_orders_of_the_operations_occur_equally_often():
  order = augment.draw_jitter(jax.random.key(3), (4800, 2)).order
  _, count = np.unique(np.asarray(order), axis=0, return_counts=True)
  assert len(count) == 24
  assert abs(count - 200).max() < 70


def test_frames_of_one_clip_get_independent_factors():
  factors = np.asarray(augment.draw_jitter(jax.random.key(4), (4000, 2)).factors)
  for row in range(4):
    correlation = np.corrcoef(factors[:, row, 0], factors[:, row, 1])[0, 1]
    assert abs(correlation) < 0.07


def test_only_some_clips_are_jittered_and_grayscale_is_apart():
  options = dict(per_frame=False, grayscale=0.2)
  key, shape = jax.random.key(5), (4000, 2)
  some = augment.draw_jitter(key, shape, probability=0.8, **options)
  every = augment.draw_jitter(key, shape, **options)
  neutral = jnp.array([[1, 1], [1, 1], [1, 1], [0, 0]])
  jittered = (some.factors != neutral).any((1, 2))
  # 4000 draws at p = 0.8: four standard deviations are 0.025.
  assert abs(jittered.mean() - 0.8) < 0.025
  np.testing.assert_array_equal(some.factors[jittered], every.factors[jittered])
  np.testing.assert_array_equal(some.grayscale, every.grayscale)
  assert abs(np.corrcoef(jittered, some.grayscale)[0, 1]) < 0.07


def test_blur_equals_the_one_of_opencv_and_none_is_the_identity():
  video = np.asarray(_video(clips=5, frames=2))
  sigma = np.array([0.1, 0.7, 1.3, 2.0, 0.0], np.float32)
  found = jax.jit(augment.gaussian_blur)(video, sigma)
  np.testing.assert_allclose(found[4], video[4], atol=1e-7)
  for clip, blurred, wide in zip(video, found, sigma[:4], strict=False):
    for frame, ours in zip(clip, blurred, strict=True):
      expected = cv2.GaussianBlur(
        frame, (13, 13), float(wide), borderType=cv2.BORDER_REFLECT_101
      )
      np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_half_of_the_clips_are_blurred_over_the_whole_range():
  sigma = np.asarray(augment.draw_blur(jax.random.key(6), (20, 200)))
  blurred = sigma[sigma > 0]
  assert abs(blurred.size / sigma.size - 0.5) < 0.032
  assert 0.1 <= blurred.min() < 0.11 and 1.99 < blurred.max() < 2.0
  assert abs(blurred.mean() - 1.05) < 0.05


def test_only_chosen_clips_are_turned_gray():
  video, chosen = _video(), jnp.array([True, False, True])
  gray = np.asarray(augment.to_grayscale(video, chosen))
  for clip, flag in enumerate(chosen):
    expected = augment.to_grayscale(video[clip]) if flag else video[clip]
    np.testing.assert_allclose(gray[clip], expected, atol=1e-7)


def test_normalize_takes_one_number_or_one_per_channel():
  video = _video()
  expected = (np.asarray(video) - 0.45) / 0.225
  np.testing.assert_allclose(augment.normalize(video, 0.45, 0.225), expected, atol=1e-6)
  mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
  expected = (np.asarray(video) - mean) / std
  np.testing.assert_allclose(augment.normalize(video, mean, std), expected, atol=1e-6)


def test_jitter_is_the_same_in_the_form_for_tpus(monkeypatch):
  video = jnp.asarray(np.random.default_rng(0).random((5, 3, 8, 9, 3), np.float32))
  jitter = augment.draw_jitter(jax.random.key(0), (5, 3))
  expected = augment.apply_jitter(video, jitter)
  monkeypatch.setattr(
    jax.lax, "platform_dependent", lambda *args, tpu, default: tpu(*args)
  )
  found = augment.apply_jitter(video, jitter)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
