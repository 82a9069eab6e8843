"""Crops: golden positions, torchvision's procedure, and resizing against PyTorch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.ops import crops

draw_resized_crops = jax.jit(
  crops.draw_resized_crops, static_argnames=("area", "aspect")
)
draw_crops = jax.jit(crops.draw_crops, static_argnames="size")
center_square = jax.jit(crops.center_square, static_argnames="ratio")
three_crops = jax.jit(crops.three_crops, static_argnames="size")
resize_crops = jax.jit(crops.resize_crops, static_argnames="size")

GOLDEN = np.load(Path(__file__).parent / "golden" / "evaluation.npz")


def random_video(*shape, seed=0, dtype=np.float32):
  video = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  return video if dtype == np.uint8 else video.astype(np.float32) / 255


def extents(*sizes):
  return jnp.array(sizes, jnp.int32)


def test_three_crops_are_where_the_golden_ones_are():
  rows = GOLDEN["crops/rows"].reshape(-1, 3, 9)
  assert (rows[:, :, 4] == [0, 1, 2]).all()
  for size in np.unique(rows[:, 0, 3]):
    views = rows[rows[:, 0, 3] == size]
    found = three_crops(jnp.asarray(views[:, 0, 5:7]), size=int(size))
    np.testing.assert_array_equal(found[..., :2], views[..., 7:])
    np.testing.assert_array_equal(found[..., 2:], size)


def test_the_test_crop_of_mosi_is_where_the_golden_one_is():
  rows = GOLDEN["mosi_test_crop/rows"]
  found = center_square(jnp.asarray(rows[:, :2]), ratio=0.875)
  np.testing.assert_array_equal(found, rows[:, 2:])


def test_central_crops_lie_in_the_middle_and_inside():
  found = crops.center_crops(extents((40, 61), (20, 90), (0, 0)), size=32)
  assert found.tolist() == [[4, 14, 32, 32], [0, 35, 20, 20], [0, 0, 0, 0]]


def test_resizing_equals_bilinear_interpolation_of_pytorch():
  torch = pytest.importorskip("torch")
  video = random_video(4, 3, 40, 52, 3)
  boxes = [(0, 0, 40, 52), (3, 7, 21, 33), (10, 2, 24, 24), (5, 20, 7, 30)]
  flip = jnp.array([False, True, False, True])
  found = resize_crops(video, jnp.array(boxes), size=24, flip=flip)
  for clip, (top, left, height, width), mirrored, ours in zip(
    video, boxes, flip, found, strict=True
  ):
    cut = clip[:, top : top + height, left : left + width]
    cut = torch.from_numpy(cut).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
      cut, (24, 24), mode="bilinear", align_corners=False, antialias=False
    )
    expected = resized.permute(0, 2, 3, 1).numpy()
    expected = expected[:, :, ::-1] if mirrored else expected
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_box_of_the_output_size_is_copied():
  video = random_video(2, 2, 30, 40, 3, dtype=np.uint8)
  box = jnp.array([[4, 9, 16, 16], [14, 24, 16, 16]])
  found = resize_crops(video, box, size=16)
  for clip, (top, left, *_), ours in zip(video, box, found, strict=True):
    cut = clip[:, top : top + 16, left : left + 16]
    np.testing.assert_allclose(ours * 255, cut, atol=1e-4)


def test_views_are_crops_of_the_same_clip():
  video = random_video(2, 3, 20, 30, 3)
  boxes = three_crops(extents((20, 30), (18, 12)), size=12)
  found = resize_crops(video, boxes, size=12)
  assert found.shape == (2, 3, 3, 12, 12, 3)
  for view in range(3):
    alone = resize_crops(video, boxes[:, view], size=12)
    np.testing.assert_allclose(found[:, view], alone, atol=1e-6)


@pytest.mark.parametrize("turns", [False, True])
def test_nothing_outside_the_extent_is_seen(turns):
  video = random_video(64, 1, 24, 32, 3)
  sizes = np.random.default_rng(1).integers(1, (25, 33), (64, 2))
  turned = crops.is_turned(jnp.asarray(sizes), (24, 32)) if turns else None
  covered = (
    np.asarray(crops.in_canvas(jnp.asarray(sizes), (24, 32))) if turns else sizes
  )
  assert not turns or 8 < turned.sum() < 56
  inside = (np.arange(24)[:, None] < covered[:, :1, None]) & (
    np.arange(32) < covered[:, 1:, None]
  )
  video = np.where(inside[:, None, :, :, None], video, 1e6)
  extent, key = jnp.asarray(sizes, jnp.int32), jax.random.key(0)
  for box in (
    draw_resized_crops(key, extent, area=(0.1, 1)),
    draw_crops(key, extent, size=16),
    center_square(extent, ratio=1),
    three_crops(extent, size=16),
  ):
    corner, sides = box[..., :2], box[..., 2:]
    assert (corner >= 0).all() and (sides > 0).all()
    limit = extent.reshape(64, *[1] * (box.ndim - 2), 2)
    assert (corner + sides <= limit).all()
    assert jnp.abs(resize_crops(video, box, size=8, turned=turned)).max() <= 1.001


def test_a_clip_without_extent_gives_zeros():
  extent, key = extents((0, 0)), jax.random.key(0)
  video = np.zeros((1, 2, 9, 9, 3), np.uint8)
  for box in (
    draw_resized_crops(key, extent, area=(0.1, 1)),
    draw_crops(key, extent, size=4),
    center_square(extent, ratio=0.875),
    three_crops(extent, size=4),
  ):
    assert (resize_crops(video, box, size=4) == 0).all()


def test_drawn_boxes_have_the_distribution_of_torchvision():
  area, aspect, height, width = (0.3, 0.6), (0.5, 2.0), 240, 320
  count = 4000
  extent = jnp.tile(extents((height, width)), (count, 1))
  key = jax.random.key(0)
  found = np.asarray(draw_resized_crops(key, extent, area=area, aspect=aspect))
  rng = np.random.default_rng(0)
  expected = [_torchvision_box(rng, height, width, area, aspect) for _ in range(count)]
  # The standard error of a decile of 4000 draws is below 0.8 % of the range here.
  for column, limit in enumerate((240, 320, 240, 320)):
    levels = np.arange(10, 91, 10)
    difference = np.percentile(found[:, column], levels) - np.percentile(
      np.array(expected)[:, column], levels
    )
    assert abs(difference).max() < 0.035 * limit
  share = found[:, 2] * found[:, 3] / (height * width)
  ratio = found[:, 3] / found[:, 2]
  assert 0.29 < share.min() < 0.31 and 0.59 < share.max() < 0.61
  assert 0.49 < ratio.min() < 0.6 and 1.7 < ratio.max() < 2.02
  assert len(np.unique(found, axis=0)) > 0.99 * count


def _torchvision_box(rng, height, width, area, aspect):
  """The written procedure, one box at a time."""
  for _ in range(10):
    pixels = height * width * rng.uniform(*area)
    ratio = np.exp(rng.uniform(*np.log(aspect)))
    box_width, box_height = (
      round((pixels * ratio) ** 0.5),
      round((pixels / ratio) ** 0.5),
    )
    if 0 < box_width <= width and 0 < box_height <= height:
      top = rng.integers(0, height - box_height + 1)
      return top, rng.integers(0, width - box_width + 1), box_height, box_width
  raise AssertionError("ten misfits in a row")


@pytest.mark.parametrize(
  ("extent", "aspect", "expected"),
  [
    ((10, 100), (0.75, 4 / 3), (0, 43, 10, 13)),
    ((100, 10), (0.75, 4 / 3), (43, 0, 13, 10)),
    ((50, 60), (4.0, 5.0), (17, 0, 15, 60)),
  ],
)
def test_the_largest_centred_box_is_taken_if_no_try_fits(extent, aspect, expected):
  found = draw_resized_crops(
    jax.random.key(3), extents(extent), area=(0.9, 1.0), aspect=aspect
  )
  np.testing.assert_array_equal(found[0], expected)


def test_plain_crops_reach_every_place_equally_often():
  extent = jnp.tile(extents((12, 14)), (6000, 1))
  box = np.asarray(draw_crops(jax.random.key(1), extent, size=10))
  places, count = np.unique(box[:, :2], axis=0, return_counts=True)
  assert len(places) == 3 * 5
  assert abs(count - 400).max() < 90
  small = draw_crops(jax.random.key(1), extents((6, 20)), size=10)
  np.testing.assert_array_equal(small[0, 2:], [6, 6])


def test_ratios_out_of_bounds_are_refused():
  with pytest.raises(ValueError, match="ratio must be in"):
    center_square(extents((9, 9)), ratio=1.2)
