"""MoSI clips against golden numbers, and what their random choices promise."""

import functools
import json
import zlib
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.ops import crops, pseudo_motion, static_mask, trajectory
from motion_jax.ops.label_pool import label_pool

GOLDEN_FOLDER = Path(__file__).parent / "golden"
GOLDEN = np.load(GOLDEN_FOLDER / "mosi.npz")
MANIFEST = json.loads((GOLDEN_FOLDER / "manifest.json").read_text())["fixtures"]["mosi"]
PLAIN = dict(mask_ratio=None, jitter=None, flip=False)
EIGHT = PLAIN | dict(frames=8)
SMALL = dict(frames=8, size=64)


def _stream(name):
  return np.random.default_rng([MANIFEST["seed"], zlib.crc32(name.encode())])


def _scaled_source(case):
  """Rebuilds a golden source and scales it as the reference does on the host."""
  source = _stream(f"source:{case['case']}").integers(0, 256, (*case["source_hw"], 3))
  source = source.astype(np.uint8)
  assert zlib.crc32(source.tobytes()) == case["source_crc32"]
  height, width = case["resized_hw"]
  if source.shape[:2] != (height, width):
    # float64, truncated: cv2 interpolates with half-pixel centres, not antialiased.
    source = cv2.resize(source.astype(np.float64), (width, height)).astype(np.uint8)
  return jnp.asarray(source)[None]


@pytest.mark.parametrize("case", MANIFEST["generator"], ids=lambda c: str(c["case"]))
def test_evaluation_clips_equal_the_golden_ones(case):
  golden = {
    key.split("/")[1]: GOLDEN[key]
    for key in GOLDEN.files
    if key.startswith(f"generator{case['case']}/")
  }
  pool = label_pool(case["K"])
  np.testing.assert_array_equal(pool.speeds, golden["speeds"])
  images, frames = _scaled_source(case), case["N"]
  margin = min(case["resized_hw"]) - 112
  start = trajectory.centred_start(margin, pool.speeds, steps=case["K"])
  path = trajectory.positions(
    start, pool.speeds, margin=margin, steps=case["K"], frames=frames
  )
  corner = golden["square_crop_top_left"][:, None, ::-1]
  draws = pseudo_motion.Draws(
    flip=jnp.array([False]),
    window=(corner + path.transpose(0, 2, 1))[None],
    **dict.fromkeys(["jitter", "late_flip", "background", "box"]),
  )
  extent = jnp.array([case["resized_hw"]])
  clips = pseudo_motion.render(images, extent, draws, size=112, mean=0.45, std=0.225)
  if len({*case["resized_hw"]}) > 1:
    # In a canvas of the other orientation the picture lies turned.
    turned = images.swapaxes(1, 2)
    again = pseudo_motion.render(turned, extent, draws, size=112, mean=0.45, std=0.225)
    np.testing.assert_array_equal(again, clips)
  found = np.asarray(clips)[0].transpose(0, 4, 1, 2, 3)
  assert found.shape == tuple(golden["shape"])
  # Where the scaled value is nearly whole, truncation may pick the grey level below.
  level = 1 / 255 / 0.225
  for name, values in (
    ("stride_sample", found[:, :, ::5, 3::9, 5::9].ravel()),
    ("sample", found.ravel()[golden["sample_index"]]),
  ):
    bits = golden[f"{name}_rounding_sensitive"]
    sensitive = np.unpackbits(bits, count=values.size)
    error = abs(values - golden[name].ravel())
    assert (error <= 2e-5 + sensitive * level).all()
  np.testing.assert_allclose(found.mean((1, 2, 3, 4)), golden["label_mean"], atol=2e-3)


def test_an_evaluation_clip_has_the_published_moments_and_pixels():
  image = np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3), np.uint8)
  clips, labels = pseudo_motion.generate(
    jax.random.key(0), jnp.asarray(image), train=False, **PLAIN
  )
  clips = np.asarray(clips, np.float64)
  assert clips.shape == (1, 9, 16, 112, 112, 3)
  assert labels.tolist() == [list(range(9))]
  np.testing.assert_allclose(clips.mean(), 0.2111356, atol=1e-6)
  np.testing.assert_allclose(clips.std(), 1.2899088, atol=1e-6)
  expected = [-1.0936819, -0.8322439, -1.9128541]
  np.testing.assert_allclose(clips[0, 3, 5, 10, :3, 0], expected, atol=1e-6)


@pytest.mark.parametrize("case", MANIFEST["mask"], ids=lambda c: str(c["case"]))
def test_static_masks_equal_the_golden_ones(case):
  clip = _stream(f"maskclip:{case['case']}").standard_normal(case["clip_shape_cthw"])
  x, y, width, height = case["box"]
  assert width == height
  found = static_mask.apply_mask(
    jnp.asarray(clip.transpose(1, 2, 3, 0), jnp.float32),
    jnp.array(case["q"]),
    jnp.array([x, y, width]),
  )
  found = np.asarray(found).transpose(3, 0, 1, 2)
  prefix = f"mask{case['case']}"
  index = GOLDEN[f"{prefix}/sample_index"]
  np.testing.assert_array_equal(found.ravel()[index], GOLDEN[f"{prefix}/sample"])


def _images(batch):
  values = np.random.default_rng(5).integers(0, 256, (batch, 104, 150, 3), np.uint8)
  return jnp.asarray(values)


def test_only_the_box_moves_and_the_rest_is_the_background_frame():
  images, key = _images(2), jax.random.key(2)
  extent = jnp.array([[104, 150]] * 2)
  masked, _ = pseudo_motion.generate(key, images, **SMALL)
  draws = pseudo_motion.draw(key, extent, label_pool(), **SMALL)
  free = pseudo_motion.render(
    images, extent, draws._replace(box=None), size=64, mean=0.45, std=0.225
  )
  masked, free = np.asarray(masked), np.asarray(free)
  for b, p in np.ndindex(2, 9):
    x, y, side = np.asarray(draws.box[b, p])
    assert 19 <= side <= 32 and min(x, y) >= 0 and max(x, y) + side <= 64
    expected = np.broadcast_to(free[b, p, draws.background[b, p]], free[b, p].shape)
    expected = expected.copy()
    inside = np.s_[:, y : y + side, x : x + side]
    expected[inside] = free[b, p][inside]
    np.testing.assert_allclose(masked[b, p], expected, atol=1e-6)


def _windows(extent, options, count=300, size=64):
  draws = pseudo_motion.draw(
    jax.random.key(1), jnp.array([extent] * count), label_pool(), size=size, **options
  )
  return np.asarray(draws.window), draws


def test_channels_are_normalised_with_their_own_mean_and_deviation():
  images, key = jnp.full((1, 104, 150, 3), 128, jnp.uint8), jax.random.key(0)
  mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  clips, _ = pseudo_motion.generate(
    key, images, size=64, mean=mean, std=std, frames=8, mask_ratio=None, jitter=None
  )
  expected = (128 / 255 - np.array(mean)) / std
  np.testing.assert_allclose(clips, np.broadcast_to(expected, clips.shape), atol=1e-5)


def test_masks_use_every_frame_every_size_and_every_place():
  _, draws = _windows((104, 150), dict(frames=8, jitter=None))
  count = np.bincount(np.asarray(draws.background).ravel(), minlength=8)
  # 2700 draws of 8 frames: five standard deviations are 86.
  assert len(count) == 8 and abs(count - 2700 / 8).max() < 86
  x, y, side = np.asarray(draws.box).reshape(-1, 3).T
  assert set(side) == set(range(19, 32))
  for place in (x, y):
    assert place.min() == 0 and (place + side).max() == 64
    assert abs((place / (64 - side)).mean() - 0.5) < 0.03
  assert abs(np.corrcoef(x, y)[0, 1]) < 0.1


def test_crops_as_products_are_those_that_are_sliced(monkeypatch):
  planes = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 57), np.uint8)
  left, top = jnp.array([[0, 3, 25], [7, 25, 9]]), jnp.array([[8, 0, 2], [5, 1, 7]])
  expected = [
    [image[:, y : y + 32, x : x + 32] for x, y in zip(*places, strict=True)]
    for image, *places in zip(planes, left, top, strict=True)
  ]
  cut = functools.partial(pseudo_motion.crop_path, jnp.asarray(planes), left, top, 32)
  np.testing.assert_array_equal(cut(), expected)
  # As a TPU does it.
  monkeypatch.setattr(
    jax.lax, "platform_dependent", lambda *args, tpu, default: tpu(*args)
  )
  np.testing.assert_array_equal(cut(), expected)


def test_windows_stay_inside_the_picture_and_fastest_paths_cross_the_margin():
  windows, draws = _windows((104, 150), EIGHT)
  assert windows.min() == 0
  assert (windows.max((0, 1, 2)) == [150 - 64, 104 - 64]).all()
  travel = windows[:, :, -1] - windows[:, :, 0]
  assert (travel == label_pool().speeds * 20).all()
  fastest = _windows((104, 104), EIGHT)[0][:, 3, :, 0]
  assert (fastest[:, 0] == 0).all() and (fastest[:, -1] == 40).all()
  assert not draws.flip.any()


def test_every_class_draws_its_own_square_and_start():
  windows, _ = _windows((104, 300), EIGHT)
  static = windows[:, 8, 0]
  assert np.ptp(static[:, 0]) > 220 and np.ptp(static[:, 1]) > 35
  slow = np.corrcoef(windows[:, 1, 0, 0], windows[:, 2, 0, 0])[0, 1]
  assert abs(slow) < 0.25


def test_distance_jitter_scales_the_path_within_its_range():
  options = EIGHT | dict(distance_jitter=(0.6, 1.5))
  windows, _ = _windows((148, 148), options)
  travel = abs(windows[:, :, -1] - windows[:, :, 0]).max(-1)
  for label, (x, y) in enumerate(label_pool().speeds):
    if x or y:
      distance = 42 * abs(x + y)
      low, high = 0.6 * distance, distance * (1.5 if distance < 84 else 1)
      found = travel[:, label]
      assert low - 1 <= found.min() < low + 4
      assert high - 4 < found.max() <= high + 1
  evaluation, _ = _windows((148, 148), options | dict(train=False))
  assert (evaluation[:, 3, :, 0] == np.arange(8) * 84 // 7).all()


def test_evaluation_paths_are_centred_and_sources_are_not_mirrored():
  windows, draws = _windows((320, 320), dict(train=False), count=3, size=112)
  expected = [52, 58, 65, 72, 79, 86, 93, 100, 107, 114, 121, 128, 135, 142, 149, 156]
  for b in range(3):
    assert windows[b, 2, :, 0].tolist() == expected
    assert windows[b, 1, :, 0].tolist() == expected[::-1]
    assert (windows[b, 8] == 104).all()
  assert not draws.flip.any()
  assert np.unique(draws.box.reshape(-1, 3), axis=0).shape[0] > 5


def test_what_lies_outside_the_picture_is_never_seen_even_when_mirrored():
  extent = jnp.array([[80, 150], [104, 90], [70, 75], [104, 120]])
  key = jax.random.key(3)
  row, column = jnp.arange(104)[:, None], jnp.arange(150)
  covered = crops.in_canvas(extent, (104, 150))  # the second picture lies turned
  outside = [(row >= height) | (column >= width) for height, width in covered]
  white = jnp.repeat(jnp.stack(outside)[..., None], 3, axis=-1)
  images = jnp.where(white, 255, 100).astype(jnp.uint8)
  options = dict(mask_ratio=None, jitter=None, frames=8)
  draws = pseudo_motion.draw(key, extent, label_pool(), size=64, **options)
  assert 0 < draws.flip.sum() < 4
  clips, _ = pseudo_motion.generate(
    key, images, extent=extent, size=64, mean=0.0, std=1.0, **options
  )
  np.testing.assert_allclose(clips, 100 / 255, atol=1e-6)


def test_a_row_depends_neither_on_other_rows_nor_on_the_batch_size():
  images, key = _images(3), jax.random.key(6)
  clips, _ = pseudo_motion.generate(key, images, **SMALL)
  fewer, _ = pseudo_motion.generate(key, images[:2], **SMALL)
  np.testing.assert_array_equal(clips[:2], fewer)
  other, _ = pseudo_motion.generate(key, images.at[2].set(0), **SMALL)
  np.testing.assert_array_equal(clips[:2], other[:2])
  again, _ = pseudo_motion.generate(jax.random.key(7), images, **SMALL)
  assert abs(clips - again).mean() > 0.1


def test_ratio_and_strength_may_be_traced_from_plain_clips_to_full_difficulty():
  images, key = _images(1), jax.random.key(8)

  @jax.jit
  def generate(low, high, strength):
    options = dict(mask_ratio=(low, high), jitter_strength=strength, flip=False)
    return pseudo_motion.generate(key, images, **SMALL, **options)[0]

  plain, _ = pseudo_motion.generate(key, images, **SMALL, **PLAIN)
  np.testing.assert_allclose(generate(1.0, 1.0, 0.0), plain, atol=2e-5)
  paper, _ = pseudo_motion.generate(key, images, **SMALL, flip=False)
  np.testing.assert_allclose(generate(0.3, 0.5, 1.0), paper, atol=2e-5)


@pytest.mark.parametrize(
  ("shape", "options", "message"),
  [
    ((1, 112, 200, 3), {}, "112x112 crop cannot move in an image of 112x200"),
    ((1, 200, 100, 3), {}, "112x112 crop cannot move in an image of 200x100"),
    ((200, 200, 3), {}, r"uint8 \[B, H, W, 3\], found uint8 \(200, 200, 3\)"),
    ((1, 200, 200, 3), dict(mask_ratio=(0.5, 0.3)), "mask_ratio must be"),
    ((1, 200, 200, 3), dict(mask_ratio=(0.0, 0.3)), "mask_ratio must be"),
    ((1, 200, 200, 3), dict(distance_jitter=(0.5, 2.5)), "high <= 2 for 2 speeds"),
    ((1, 200, 200, 3), dict(frames=1), "2 or more frames"),
  ],
)
def test_impossible_requests_are_refused(shape, options, message):
  with pytest.raises(ValueError, match=message):
    pseudo_motion.generate(jax.random.key(0), jnp.zeros(shape, jnp.uint8), **options)


def test_float_images_are_refused():
  with pytest.raises(ValueError, match="found float32"):
    pseudo_motion.generate(jax.random.key(0), jnp.zeros((1, 200, 200, 3)))


def test_clips_lie_source_by_source_on_a_tpu_alone():
  images = jax.ShapeDtypeStruct((2, 40, 60, 3), jnp.uint8)
  key = jax.eval_shape(lambda: jax.random.key(0))
  options = dict(speeds=1, axes="x", frames=4, size=32, jitter=None)
  make = jax.jit(lambda key, images: pseudo_motion.generate(key, images, **options))
  for platform, moved in (("tpu", True), ("cpu", False)):
    text = make.trace(key, images).lower(lowering_platforms=(platform,)).as_text()
    assert ("LayoutConstraint" in text) == moved, platform
