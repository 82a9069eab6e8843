"""MoSI labels against the motion in the pixels, on one device and on several."""

import subprocess
import sys
from pathlib import Path

import children
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.ops import pseudo_motion
from motion_jax.ops.label_pool import label_pool


def _textured_images(batch, height=104, width=150):
  """Smooth noise: every patch is unique and its motion can be measured."""
  noise = np.random.default_rng(5).standard_normal((batch, height, width, 3))
  smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 1.2) for image in noise])
  return jnp.asarray(np.clip(128 + 160 * smooth, 0, 255).astype(np.uint8))


def _window_motion(first, second, box, reach):
  """Returns the (x, y) shift of the crop window between two frames, by correlation.

  The inside of the box is compared at every shift; luma and normalised correlation
  make it blind to colour jitter.
  """
  x, y, side = box
  first, second = (
    (frame @ np.float32([0.299, 0.587, 0.114]))[y : y + side, x : x + side]
    for frame in (first, second)
  )
  scores = {}
  for dy in range(-reach, reach + 1):
    for dx in range(-reach, reach + 1):
      rows, columns = side - abs(dy), side - abs(dx)
      before = first[max(dy, 0) :, max(dx, 0) :][:rows, :columns]
      after = second[max(-dy, 0) :, max(-dx, 0) :][:rows, :columns]
      scores[dx, dy] = np.corrcoef(before.ravel(), after.ravel())[0, 1]
  return max(scores, key=scores.get)


def _measured_speeds(clips, draws, extent, steps):
  """Returns the speeds [B, P, 2] seen in the pixels inside the boxes."""
  batch, classes, frames, size = clips.shape[:4]
  speeds = np.zeros((batch, classes, 2), int)
  for b in range(batch):
    unit = (int(min(extent[b])) - size) / steps / (frames - 1)
    for p in range(classes):
      pairs = range(0, frames - 1, 3)
      box = np.asarray(draws.box[b, p])
      shifts = [_window_motion(*clips[b, p, t : t + 2], box, 6) for t in pairs]
      speeds[b, p] = np.rint(np.mean(shifts, axis=0) / unit)
  return speeds


@pytest.mark.parametrize(
  "options",
  [
    {},
    dict(train=False),
    dict(jitter=None, distance_jitter=(0.9, 1.1)),
    dict(mask_ratio=(1.0, 1.0), jitter_strength=0.2),
  ],
  ids=["paper", "evaluation", "distance-jitter", "no-mask"],
)
def test_labels_describe_the_motion_in_the_pixels(options):
  images = _textured_images(2)
  extent = jnp.array([[104, 150], [104, 120]])
  pool, key = label_pool(), jax.random.key(4)
  options = dict(frames=8, **options)
  clips, labels = pseudo_motion.generate(
    key, images, extent=extent, size=64, mean=0.0, std=1.0, **options
  )
  draws = pseudo_motion.draw(key, extent, pool, size=64, **options)
  if options.get("train", True):
    # One mirrored and one plain source.
    assert sorted(draws.flip.tolist()) == [False, True]
  found = _measured_speeds(np.asarray(clips), draws, extent, pool.steps)
  for b in range(2):
    np.testing.assert_array_equal(found[b], pool.speeds[labels[b]])


def test_compat_flip_mirrors_clips_but_keeps_their_labels():
  images, pool, key = _textured_images(2), label_pool(axes="x"), jax.random.key(0)
  extent = jnp.array([[104, 150]] * 2)
  options = dict(frames=8, compat_flip=True, flip=False, mask_ratio=(0.7, 0.7))
  clips, labels = pseudo_motion.generate(
    key, images, axes="x", size=64, mean=0.0, std=1.0, **options
  )
  draws = pseudo_motion.draw(key, extent, pool, size=64, **options)
  assert 0 < draws.late_flip.sum() < 10
  found = _measured_speeds(np.asarray(clips), draws, extent, pool.steps)
  sign = np.where(np.asarray(draws.late_flip)[..., None], -1, 1)
  np.testing.assert_array_equal(found, pool.speeds[labels] * sign)


SHARDED = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from motion_jax.ops import pseudo_motion
images = np.random.default_rng(0).integers(0, 256, (8, 80, 100, 3)).astype(np.uint8)
generate = lambda images: pseudo_motion.generate(
  jax.random.key(0), images, frames=4, size=32)[0]
one = jax.jit(generate)(images)
mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, P('data'))
compiled = jax.jit(generate, in_shardings=sharding, out_shardings=sharding).lower(
  images).compile()
many = compiled(jax.device_put(images, sharding))
np.testing.assert_array_equal(one, many)
text = compiled.as_text()
for name in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute'):
  assert name not in text, name
"""


@pytest.mark.slow
def test_four_devices_give_the_same_clips_without_communication():
  root = Path(__file__).parent.parent
  result = subprocess.run(
    [sys.executable, "-c", SHARDED],
    cwd=root,
    env=children.environment(4),
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
