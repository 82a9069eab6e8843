"""Held-out metrics depend on no batch and no device; evaluations run on any number."""

import functools
import json
import sys

import children
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from small_modist import smoke

from motion_jax.methods.modist_inputs import Inputs
from motion_jax.ops import pseudo_motion
from motion_jax.ops.draws import draw_by_row

LAYOUTS = ("16x1", "6x4", "4x2", "16x3")  # rows of a batch x devices
WITHIN_A_BATCH = ("batch_accuracy", "spread")
LONG = [
  pytest.param(name, marks=pytest.mark.long) for name in ("modist", "mas", "joint")
]
METHODS = ("mosi", *LONG)


@functools.cache
def videos(folder):
  """Ten frame folders of textures that move."""
  rng = np.random.default_rng(0)
  for index in range(10):
    video = folder / "videos" / f"{index:02d}"
    video.mkdir(parents=True)
    texture = cv2.resize(rng.integers(0, 256, (9, 16, 3), np.uint8), (110, 66))
    for frame in range(24):
      moved = np.roll(texture, (index - 4) * frame, axis=1)
      cv2.imwrite(str(video / f"{frame:03d}.png"), moved)
  return folder / "videos"


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_metrics_depend_neither_on_batches_nor_on_devices(name, tmp_path_factory):
  folder = videos(tmp_path_factory.getbasetemp())
  words = [sys.executable, ROOT / "tests" / "same_heldout.py", folder, name]
  words.append(",".join(LAYOUTS))
  result = children.run(words, env=children.environment(4), timeout=900)
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)[name]
  expected = found["16x1"]
  assert len(expected) > 1 and np.isfinite([*expected.values()]).all()
  for layout in LAYOUTS:
    rows = layout.split("x")[0]
    for metric, value in expected.items():
      if rows == "16" or not metric.endswith(WITHIN_A_BATCH):
        found_here = found[layout][metric]
        assert found_here == pytest.approx(value, rel=1e-5, abs=1e-6), (layout, metric)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modist", LONG[-1]])
def test_devices_that_no_training_accepts_evaluate_a_run(name, tmp_path_factory):
  folder = videos(tmp_path_factory.getbasetemp())
  words = [sys.executable, ROOT / "tests" / "twelve_devices.py", folder, name]
  result = children.run(words, env=children.environment(12), timeout=300)
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout.splitlines()[-1])
  assert found["features"] == 16
  assert np.isfinite(found["values"]["eval/loss"])
  assert "must be a multiple of 12 (12 devices" in found["refusal"]


def test_a_row_gets_the_same_draws_in_any_batch():
  key, extent = jax.random.key(0), jnp.array([[70, 120], [80, 80], [90, 75], [64, 64]])
  numbers, some = jnp.array([7, 3, -1, 12]), jnp.array([3, 1])
  pool = pseudo_motion.label_pool()

  def of_images(numbers, extent):
    return pseudo_motion.draw(key, extent, pool, size=48, rows=numbers, train=False)

  inputs = Inputs(smoke().method, smoke().data)

  def of_clips(numbers, extent):
    return draw_by_row(inputs.draw, key, numbers, extent)

  for draw in (of_images, of_clips):
    draw = jax.jit(draw)
    drawn, alone = draw(numbers, extent), draw(numbers[some], extent[some])
    for one, other in zip(*map(jax.tree.leaves, (drawn, alone)), strict=True):
      np.testing.assert_array_equal(one[some], other)
    moved = draw(numbers + 1, extent)
    leaves = map(jax.tree.leaves, (drawn, moved))
    assert any((one != other).any() for one, other in zip(*leaves, strict=True))
