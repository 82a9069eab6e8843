"""Upright frames in a wide canvas: they lie turned, and nobody sees a difference."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_modist
import test_classify
import test_mas
import test_mosi

from motion_jax.data.clips import Clip, SourceFrame, Views
from motion_jax.data.media import place
from motion_jax.data.sources import Record
from motion_jax.methods import make_method
from motion_jax.ops import crops, motion_inputs


@functools.cache
def picture(height, width):
  coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
  return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def record(folder, image, frames=1):
  paths = []
  for number in range(frames):
    paths.append(folder / f"{number}.png")
    cv2.imwrite(str(paths[-1]), np.roll(image, 7 * number, axis=0)[..., ::-1])
  kind, media = ("image", paths[0]) if frames == 1 else ("frames", tuple(paths))
  return Record(id="upright", label=-1, kind=kind, media=media)


def test_an_upright_picture_keeps_its_ends_in_a_wide_canvas(tmp_path):
  """430x250 pixels become 550x320: all places of a square are there."""
  found = SourceFrame(320, (320, 569))(
    record(tmp_path, picture(430, 250)), np.random.default_rng(0)
  )
  assert found["extent"].tolist() == [550, 320]
  upright = SourceFrame(320, (569, 320))(
    record(tmp_path, picture(430, 250)), np.random.default_rng(0)
  )
  np.testing.assert_array_equal(found["image"].swapaxes(0, 1), upright["image"])
  assert upright["extent"].tolist() == [550, 320]
  assert crops.is_turned(jnp.array([550, 320]), (320, 569))
  assert not crops.is_turned(jnp.array([550, 320]), (569, 320))


@pytest.mark.parametrize("canvas", [(30, 50), (50, 30), (40, 40), (30, 200)])
@pytest.mark.parametrize("shape", [(30, 50), (60, 30), (30, 60), (35, 35), (100, 30)])
def test_what_is_placed_and_told_fits_what_the_device_takes_for_turned(canvas, shape):
  frame = np.arange(1, 1 + shape[0] * shape[1]).reshape(*shape, 1)
  target = np.zeros((*canvas, 1), int)
  extent = place(frame, target, (0.3, 0.8))
  if crops.is_turned(jnp.array(extent), canvas):
    target = target.swapaxes(0, 1)
  seen = target[: extent[0], : extent[1]]
  assert (target != 0).sum() == seen.size and (seen > 0).all()
  top, left = np.argwhere(frame == seen[0, 0])[0][:2]
  np.testing.assert_array_equal(frame[top:, left:][: extent[0], : extent[1]], seen)
  longest = sorted(canvas, reverse=True) if shape[0] > shape[1] else sorted(canvas)
  if shape[0] != shape[1]:  # only what is longer than the canvas's longer side is lost
    assert extent == tuple(map(min, shape, longest))


@pytest.mark.parametrize("make", [Clip, functools.partial(Views, 2)])
def test_clips_of_upright_videos_lie_turned_whole(make, tmp_path):
  video = record(tmp_path, picture(96, 54), frames=5)
  sizes = dict(frames=3, interval=1, short_side=54)
  wide, tall = (
    make(canvas=canvas, **sizes)(video, np.random.default_rng(1))
    for canvas in ((54, 96), (96, 54))
  )
  assert {*map(tuple, wide["extent"].reshape(-1, 2))} == {(96, 54)}
  np.testing.assert_array_equal(wide["video"].swapaxes(-3, -2), tall["video"])


def in_both(batch, names, height, width):
  """The batch with upright pictures, as they lie in a tall canvas and in a wide one."""
  tall = dict(batch)
  extent = np.zeros_like(batch["extent"])
  extent[:] = height, width
  for name in names:
    array = np.array(batch[name].swapaxes(-3, -2))  # of the wide test pictures
    array[..., height:, :, :] = array[..., width:, :] = 0
    tall[name] = array
  tall["extent"] = extent
  wide = tall | {name: tall[name].swapaxes(-3, -2) for name in names}
  return tall, wide


def mosi():
  rows = test_mosi.batch(4, side=96)
  rows["image"] = rows["image"][:, :70]
  return make_method(test_mosi.smoke()), rows, ("image",), (90, 64)


def modist():
  config = small_modist.smoke(projection_norm=False)
  rows = small_modist.batch(config)
  height, width = config.data.canvas
  return make_method(config), rows, ("video", "motion"), (width - 4, height - 1)


def classify():
  rows = test_classify.batch(4)
  return make_method(test_classify.smoke()), rows, ("video",), (58, 39)


def mas():
  rows = test_mas.batch(4)
  flow = np.random.default_rng(3).integers(100, 150, (4, 3, 37, 49, 2), np.uint8)
  return (
    make_method(test_mas.smoke()),
    rows | {"flow": flow},
    ("video", "flow"),
    (48, 36),
  )


@pytest.mark.slow
@pytest.mark.parametrize("build", [mosi, modist, classify, mas])
def test_every_method_sees_the_same_clips_and_labels(build):
  method, rows, names, shape = build()
  pretext = jax.jit(method.pretext)
  tall, wide = (
    pretext(batch, jax.random.key(2), 0) for batch in in_both(rows, names, *shape)
  )
  for one, other in zip(*map(jax.tree.leaves, (tall, wide)), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5)
  spread = jnp.stack([leaf.std() for leaf in jax.tree.leaves(tall)])
  assert (spread > 0).all()


def test_crops_of_a_turned_video_are_those_of_the_wide_one_turned():
  """Bit by bit: what lies alike is computed alike."""
  video = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 32, 3), np.uint8)
  box = jnp.array([[3, 2, 17, 11], [12, 0, 16, 20]])
  turned, none = jnp.array([True, True]), jnp.array([False, False])
  upright = crops.resize_crops(video, box, size=8, turned=turned)
  wide = crops.resize_crops(video, box[:, jnp.array([1, 0, 3, 2])], size=8, turned=none)
  np.testing.assert_array_equal(upright, wide.swapaxes(-3, -2))
  alone = crops.resize_crops(video, box[:, jnp.array([1, 0, 3, 2])], size=8)
  np.testing.assert_array_equal(wide, alone)


def test_flow_of_a_turned_video_has_its_own_directions(monkeypatch):
  def moved(first, second, **_):  # along x and y of the canvas
    return jnp.stack([second[..., 0] * 0.0 + 2.0, first[..., 0] * 0.0 - 1.0], -1)

  monkeypatch.setattr(motion_inputs, "variational_flow", moved)
  pairs, extent = (
    jnp.zeros((2, 1, 2, 20, 32, 3), jnp.uint8),
    jnp.array([[30, 20], [20, 30]]),
  )
  found = motion_inputs.flow_of_pairs(pairs, extent)
  assert found[0, 0, 0, 0].tolist() == [-1, 2] and found[1, 0, 0, 0].tolist() == [2, -1]
