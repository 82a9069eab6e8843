"""RoIAlign against reference values, brute force and finite differences."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.ops.roi_align import roi_align

pool = jax.jit(roi_align, static_argnames=("scale", "size", "samples"))
GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "evaluation.npz")


def _golden_boxes():
  """Features [3, H, W, C]; all 12 boxes for each map; which of them belongs to it."""
  features = jnp.asarray(GOLDEN["roi/features"]).transpose(0, 2, 3, 1)
  table = GOLDEN["roi/boxes_batch_x1_y1_x2_y2"]
  boxes = jnp.tile(jnp.asarray(table[:, 1:])[None], (len(features), 1, 1))
  return features, boxes, table[:, 0].astype(int)


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("samples", [0, 2])
def test_boxes_are_pooled_as_in_the_reference(size, samples):
  features, boxes, owner = _golden_boxes()
  found = pool(features, boxes, scale=1 / 16, size=size, samples=samples)
  found = np.asarray(found)[owner, np.arange(len(owner))].transpose(0, 3, 1, 2)
  expected = GOLDEN[f"roi/out{size}_sampling{samples}"]
  assert not GOLDEN["roi/box_inside_image"].all()  # some reach outside
  np.testing.assert_allclose(found, expected, atol=1e-5)
  if (size, samples) == (7, 0):
    pooled = GOLDEN["roi/max_pooled_out7_sampling0"]
    np.testing.assert_allclose(found.max((2, 3)), pooled, atol=1e-5)


def _brute_force(image, box, size, samples):
  """One box by loops over bins and samples, from the definition."""
  height, width = image.shape
  x1, y1, x2, y2 = np.asarray(box, np.float64) - 0.5
  out = np.zeros((size, size))
  rows = samples or max(0, int(np.ceil((y2 - y1) / size)))
  columns = samples or max(0, int(np.ceil((x2 - x1) / size)))
  for p, q in np.ndindex(size, size):
    for i, j in np.ndindex(rows, columns):
      y = y1 + (p + (i + 0.5) / rows) * (y2 - y1) / size
      x = x1 + (q + (j + 0.5) / columns) * (x2 - x1) / size
      if not (-1 <= y <= height and -1 <= x <= width):
        continue
      y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
      for v in {int(y), min(int(y) + 1, height - 1)}:
        for u in {int(x), min(int(x) + 1, width - 1)}:
          weight = (1 - abs(y - v)) * (1 - abs(x - u))
          out[p, q] += weight * image[v, u] / (rows * columns)
  return out


@pytest.mark.parametrize("samples", [0, 1, 3])
def test_any_box_is_pooled_as_by_brute_force(samples):
  rng = np.random.default_rng(samples)
  image = rng.standard_normal((6, 9))
  first = rng.uniform(-4, 8, (20, 2))
  boxes = np.concatenate([first, first + rng.uniform(0.2, 9, (20, 2))], 1)
  found = pool(
    jnp.asarray(image, jnp.float32)[None, :, :, None],
    jnp.asarray(boxes, jnp.float32)[None],
    scale=1.0,
    size=3,
    samples=samples,
  )
  for box, one in zip(boxes, np.asarray(found)[0, :, :, :, 0], strict=True):
    expected = _brute_force(image, box.astype(np.float32), 3, samples)
    np.testing.assert_allclose(one, expected, atol=1e-4)


def test_a_ramp_is_read_at_the_middle_of_each_bin():
  rows, columns = np.mgrid[:12, :16].astype(np.float32)
  ramp = jnp.asarray(np.stack([rows, columns], -1))[None]
  box = jnp.asarray([[[32.0, 48.0, 128.0, 160.0]]])
  found = pool(ramp, box, scale=1 / 16, size=2)[0, 0]
  # 48/16 to 160/16 are rows 3 to 10; pixel 0 has its centre at 0.5.
  np.testing.assert_allclose(found[:, 0, 0], [3 + 1.75 - 0.5, 3 + 5.25 - 0.5])
  np.testing.assert_allclose(found[0, :, 1], [2 + 1.5 - 0.5, 2 + 4.5 - 0.5])


@pytest.mark.parametrize("samples", [0, 2])
def test_gradients_are_those_of_finite_differences(samples):
  rng = np.random.default_rng(0)
  inputs = [
    jnp.asarray(rng.standard_normal((2, 5, 6, 3)), jnp.float32),
    jnp.asarray([[[1.3, 0.7, 17.9, 15.2], [6.1, 5.2, 30.0, 12.7]]] * 2, jnp.float32),
  ]
  weight = jnp.asarray(rng.standard_normal((2, 2, 3, 3, 3)), jnp.float32)

  @jax.jit
  def score(features, boxes):
    pooled = roi_align(features, boxes, scale=0.25, size=3, samples=samples)
    return (weight * pooled).sum()

  grads = jax.jit(jax.grad(score, (0, 1)))(*inputs)
  # Linear in the features; in the boxes only between pixel centres.
  for place, step in ((0, 0.5), (1, 2e-3)):
    for _ in range(4):
      direction = jnp.asarray(rng.standard_normal(inputs[place].shape), jnp.float32)
      ends = []
      for sign in (1, -1):
        moved = list(inputs)
        moved[place] = moved[place] + sign * step * direction
        ends.append(score(*moved))
      numeric = (ends[0] - ends[1]) / (2 * step)
      analytic = (grads[place] * direction).sum()
      np.testing.assert_allclose(analytic, numeric, rtol=1e-2, atol=2e-3)


def test_empty_boxes_are_zero_and_have_finite_gradients():
  features = jnp.ones((1, 4, 4, 2))

  @jax.jit
  def score(boxes):
    return roi_align(features, boxes, scale=1.0, size=2).sum()

  boxes = jnp.zeros((1, 3, 4))
  assert score(boxes) == 0
  assert jnp.isfinite(jax.jit(jax.grad(score))(boxes)).all()
