"""Motion and appearance statistics: golden labels, mirroring, brute force."""

import functools
import zlib

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.ops import appearance_statistics as appearance
from motion_jax.ops import motion_statistics as motion
from motion_jax.ops import partition

SIZE = 112
# What mirroring a frame does to the regions and, for u and v, to the directions.
MIRRORED_REGIONS = {
  "grid": [4 * (i // 4) + 3 - i % 4 for i in range(16)],
  "rings": [0, 1, 2, 3],
  "triangles": [3, 2, 1, 0, 7, 6, 5, 4],
}
MIRRORED_DIRECTIONS = {"u": lambda k: (8 - k) % 8, "v": lambda k: (4 - k) % 8}


@functools.cache
def golden():
  return golden_weights.arrays("mas")


def stream(name):
  seed = golden_weights.fixture("mas")["seed"]
  return np.random.default_rng([seed, zlib.crc32(name.encode())])


def golden_flow(case):
  """[15, 112, 112, 2] float32, by the formula of the golden README."""
  data = golden()
  y, x = np.mgrid[:SIZE, :SIZE].astype(float)
  t = np.arange(15)[:, None, None]
  planes = []
  for channel in range(2):
    plane = (
      np.zeros((15, SIZE, SIZE)) + data["motion/bias"][case, channel][:, None, None]
    )
    for a, b, w, q, cx, cy, s, fx, fy, p in data["motion/waves"][case, channel]:
      if a:
        bell = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * s**2))
        wave = bell * np.cos(2 * np.pi * (fx * x + fy * y) / 112 + p)
        plane += a * (1 + b * np.sin(2 * np.pi * w * t / 15 + q)) * wave
    a, theta, x0, y0, b, q = data["motion/ramp"][case, channel]
    along = (x - x0) * np.cos(theta) + (y - y0) * np.sin(theta)
    grow = a * (1 + b * np.sin(2 * np.pi * t / 15 + q))
    planes.append(plane + grow * np.maximum(along, 0) ** 2 / 100)
  flow = np.stack(planes)
  if data["motion/noise"][case] > 0:
    noise = stream(f"flownoise:{case}").standard_normal(flow.shape)
    flow = flow + data["motion/noise"][case] * noise
  flow = flow.astype(np.float32)
  sample = flow.ravel()[data["motion/flow_sample_index"]]
  np.testing.assert_allclose(sample, data["motion/flow_sample"][case], rtol=1e-5)
  return np.moveaxis(flow, 0, -1)


def golden_clip(case):
  """[16, 112, 112, 3] uint8 RGB, by the recipe of the golden README."""
  rng, mode = stream(f"clip:{case}"), case % 5
  base = rng.integers(0, 256, (14, 14, 3))
  amplitude = rng.integers(0, [60, 120, 20, 200, 90][mode] + 1, (14, 14))
  jitter = rng.integers(-1000, 1001, (16, 14, 14, 3))
  clip = np.clip(base + (jitter * amplitude[..., None]) // 1000, 0, 255)
  clip = clip.repeat(8, 1).repeat(8, 2)
  if mode == 3:
    row, column = np.mgrid[:SIZE, :SIZE]
    moving = (row + column + 7 * np.arange(16)[:, None, None]) % 37 < 5
    clip = np.where(moving[..., None], 255 - clip, clip)
  spread = [0, 3, 0, 12, 40][mode]
  clip = np.clip(clip + rng.integers(-spread, spread + 1, clip.shape), 0, 255)
  if mode == 2:
    tint = rng.integers(0, 256, 3)
    cells = (rng.integers(0, 4, (14, 14)) == 0).repeat(8, 0).repeat(8, 1)
    clip = np.where(cells[..., None], tint, clip)
  if case == 7:
    clip = clip[:1].repeat(16, 0)
  if case == 8:
    clip = np.broadcast_to([250, 10, 240], clip.shape)
  if case == 9:
    clip = 128 + clip // 2
  clip = np.ascontiguousarray(clip, np.uint8)
  assert zlib.crc32(clip.tobytes()) == golden()["appearance/clip_crc32"][case]
  return clip[..., ::-1]


@functools.cache
def flows():
  return jnp.stack([golden_flow(case) for case in range(40)])


@functools.cache
def clips():
  return jnp.stack([golden_clip(case) for case in range(40)])


@functools.partial(jax.jit, static_argnums=1)
def motion_of(flow, voting="soft"):
  statistics = motion.motion_statistics(flow, voting=voting)
  return statistics, motion.motion_labels(statistics)


@functools.partial(jax.jit, static_argnums=1)
def appearance_of(video, colour="histogram"):
  statistics = appearance.appearance_statistics(video, colour=colour)
  return statistics, appearance.appearance_labels(statistics)


def test_the_28_masks_equal_the_golden_ones_bit_for_bit():
  packed = np.packbits(partition.masks(SIZE).reshape(28, -1), axis=1)
  np.testing.assert_array_equal(packed, golden()["masks/packed"])


@pytest.mark.parametrize("size", [16, 48, 112])
def test_cells_add_up_to_the_regions_without_overlap(size):
  groups, members = partition.cells(size)
  cells = np.zeros((members.shape[1], size * size), int)
  for index, pixels in enumerate(pixels for group in groups for pixels in group):
    cells[index, pixels] += 1
  regions = partition.masks(size).reshape(28, -1)
  np.testing.assert_array_equal(members.astype(int) @ cells, regions)


@pytest.mark.parametrize("size", [8, 100])
def test_a_frame_that_the_patterns_do_not_fit_is_refused(size):
  with pytest.raises(ValueError, match="multiple of 16"):
    partition.masks(size)


@pytest.mark.parametrize("voting", motion.VOTINGS)
def test_motion_labels_equal_the_golden_ones(voting):
  data = golden()
  statistics, labels = motion_of(flows(), voting)
  clear = data[f"motion/margin_{voting}"] > 1e-4
  assert clear.mean() > 0.9
  expected = data[f"motion/labels_{voting}"]
  np.testing.assert_array_equal(
    np.where(clear, labels, 0), np.where(clear, expected, 0)
  )
  constant = np.isin(data["motion/kind"], ("constant", "zero"))
  assert constant.sum() == 3
  assert (np.asarray(labels)[constant] == 1).all()
  for ours, theirs in (
    (statistics.regions, data["motion/block_mean"]),
    (statistics.frames, data["motion/frame_sum"]),
    (winners(statistics), data[f"motion/orientation_{voting}"]),
  ):
    largest = np.abs(theirs).max(-1, keepdims=True)
    assert (np.abs(ours - theirs) <= 1e-3 * largest + 1e-3).all()


def winners(statistics):
  """[B, 2, 3, 8]: the directions of the strongest region of each pattern."""
  result = []
  for region in partition.REGIONS.values():
    best = np.asarray(statistics.regions[:, :, region]).argmax(-1)
    directions = np.asarray(statistics.directions[:, :, region])
    result.append(np.take_along_axis(directions, best[..., None, None], 2)[:, :, 0])
  return np.stack(result, 2)


def test_motion_boundaries_equal_the_golden_samples():
  data = golden()
  total, _ = motion.motion_boundaries(flows())
  ours = np.asarray(total).reshape(40, 2, -1)[:, :, data["motion/M_sample_index"]]
  theirs = data["motion/M_sample"]
  bound = 1e-3 * np.maximum(1, np.abs(theirs).max((1, 2), keepdims=True))
  assert (np.abs(ours - theirs) <= bound).all()


@pytest.mark.parametrize(
  ("colour", "expected"),
  [
    ("histogram", "labels_8bin"),
    pytest.param("exact", "labels_exact_rgb", marks=pytest.mark.long),
  ],
)
def test_appearance_labels_equal_the_golden_ones(colour, expected):
  data = golden()
  statistics, labels = appearance_of(clips(), colour)
  margin = data["appearance/margin_8bin"]
  clear = (margin > 1e-6) | (margin == 0)
  theirs = data[f"appearance/{expected}"]
  assert (np.asarray(labels) == theirs)[clear].all()
  iou = data["appearance/iou"]
  np.testing.assert_allclose(statistics.stability, iou, atol=1e-6)


def test_pure_colours_have_the_codes_of_the_table():
  colours = golden()["appearance/pure_bgr"][:, ::-1]
  video = jnp.broadcast_to(
    colours[:, None, None, None].astype(np.uint8), (len(colours), 2, 16, 16, 3)
  )
  for rule in appearance.COLOURS:
    codes = appearance_of(video, rule)[0].colours + 1
    expected = golden()["appearance/pure_label"][:, None]
    np.testing.assert_array_equal(codes, np.broadcast_to(expected, codes.shape))


def test_a_constant_flow_changes_nothing():
  flow = flows()[:4]
  pan = jnp.asarray(np.random.default_rng(0).normal(0, 5, (4, 15, 1, 1, 2)))
  one, other = motion_of(flow), motion_of(flow + pan.astype(jnp.float32))
  clear = golden()["motion/margin_soft"][:4] > 1e-3
  np.testing.assert_array_equal(np.asarray(one[1])[clear], np.asarray(other[1])[clear])
  scale = float(jnp.abs(one[0].regions).max())
  np.testing.assert_allclose(one[0].regions, other[0].regions, atol=1e-4 * scale)


def mirrored_region(label, pattern):
  return np.array(MIRRORED_REGIONS[pattern])[label - 1] + 1


def test_a_mirrored_clip_has_mirrored_motion_labels():
  # Smooth flow: its labels are decided by far more than rounding.
  clear = (golden()["motion/margin_soft"] > 1e-3).all(1)
  assert clear.sum() > 10
  flow = flows()[clear]
  labels = np.asarray(motion_of(flow)[1])
  mirrored = np.asarray(motion_of(motion.mirror_flow(flow))[1])
  column = 0
  for pattern in partition.PATTERNS:
    for component in "uv":
      turned = mirrored_region(labels[:, column], pattern)
      np.testing.assert_array_equal(mirrored[:, column], turned)
      turned = MIRRORED_DIRECTIONS[component](labels[:, column + 1] - 1) + 1
      np.testing.assert_array_equal(mirrored[:, column + 1], turned)
      column += 2
  np.testing.assert_array_equal(mirrored[:, 12:], labels[:, 12:])


def test_a_mirrored_clip_has_mirrored_appearance_labels():
  cases = np.flatnonzero((golden()["appearance/margin_8bin"] > 1e-4).all(1))[:8]
  assert len(cases) > 4
  video = clips()[cases]
  labels = np.asarray(appearance_of(video)[1])
  mirrored = np.asarray(appearance_of(video[:, :, :, ::-1])[1])
  for column in range(13):
    turned = labels[:, column]
    if column % 2 == 0 and column < 12:
      turned = mirrored_region(turned, partition.PATTERNS[column // 4])
    np.testing.assert_array_equal(mirrored[:, column], turned)


def test_a_static_clip_is_stable_everywhere():
  video = jnp.broadcast_to(clips()[:2, :1], clips()[:2].shape)
  statistics, labels = appearance_of(video)
  assert (statistics.stability == 1).all()
  assert (labels[:, [0, 2, 4, 6, 8, 10]] == 1).all()


def test_histograms_count_every_level():
  values = np.random.default_rng(0).integers(0, 256, (3, 2, 391), np.uint8)
  values[0, 0] = 7  # more than 255 of one level
  counts = appearance.histogram(jnp.asarray(values))
  for row, count in zip(values.reshape(6, -1), counts.reshape(6, -1), strict=True):
    np.testing.assert_array_equal(count, np.bincount(row, minlength=256))


def test_small_frames_agree_with_brute_force():
  rng = np.random.default_rng(1)
  video = rng.integers(0, 256, (2, 3, 32, 32, 3), np.uint8) // 16 * 16
  statistics, _ = appearance_of(jnp.asarray(video))
  for region, mask in enumerate(partition.masks(32)):
    for clip, found in zip(video, statistics.stability[:, region], strict=True):
      ratios = []
      for channel in range(3):
        counts = [np.bincount(f[mask][:, channel], minlength=256) for f in clip]
        ratios.append(np.min(counts, 0).sum() / np.max(counts, 0).sum())
      assert found == pytest.approx(np.mean(ratios), abs=1e-6)
