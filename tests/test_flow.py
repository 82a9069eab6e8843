"""Flow edges against golden numbers; variational flow against known motions."""

from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.data import motion_codec
from motion_jax.ops import flow, flow_edges

GOLDEN = np.load(Path(__file__).parent / "golden" / "flow_edges.npz")
REAL = Path(__file__).parents[2] / "shared" / "data" / "flow"
HEIGHT, WIDTH = 64, 88
# OpenCV moves pictures by multiples of 1/32 pixel.
MOTIONS = {
  "half_a_pixel_right": [[1, 0, 0.5], [0, 1, 0]],
  "a_fraction_up": [[1, 0, 0], [0, 1, -0.3125]],
  "diagonal": [[1, 0, -2.25], [0, 1, 1.75]],
  "far": [[1, 0, 9.0], [0, 1, -6.5]],
  "zoom": [[1.05, 0, -2.2], [0, 1.05, -1.6]],
  "rotation": [[0.9976, -0.0698, 2.3], [0.0698, 0.9976, -3.0]],
}


def texture(seed, height=HEIGHT, width=WIDTH, channels=3):
  """Smooth noise of several scales, uint8."""
  rng = np.random.default_rng(seed)
  total = np.zeros((height, width, channels), np.float32)
  for size, weight in ((24, 1.0), (10, 0.8), (5, 0.5)):
    coarse = rng.standard_normal((height // size + 3, width // size + 3, channels))
    grown = cv2.resize(
      coarse.astype(np.float32), None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC
    )
    grown = grown.reshape(*grown.shape[:2], channels)
    total += weight * grown[size // 2 :, size // 2 :][:height, :width]
  return np.clip(128 + 40 * total, 0, 255).astype(np.uint8)


def moved_pair(matrix, seed=0):
  """A texture, the same moved by an affine map, and the true flow between them."""
  margin = 24
  matrix = np.array(matrix, np.float64)
  large = texture(seed, HEIGHT + 2 * margin, WIDTH + 2 * margin)
  to_large = matrix.copy()
  to_large[:, 2] += margin - matrix[:, :2] @ [margin, margin]
  size = large.shape[1::-1]
  moved = cv2.warpAffine(large, to_large, size, flags=cv2.INTER_CUBIC)
  inner = np.s_[margin:-margin, margin:-margin]
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  end = np.stack([x, y, np.ones_like(x)], -1) @ matrix.T
  return large[inner], moved[inner], end - np.stack([x, y], -1)


def end_point_error(estimate, truth, border=0):
  error = np.linalg.norm(np.asarray(estimate) - truth, axis=-1)
  return error[..., border : error.shape[-2] - border, border : -border or None].mean()


@pytest.fixture(scope="module")
def estimates():
  pairs = [moved_pair(matrix) for matrix in MOTIONS.values()]
  first, second, _ = map(np.stack, zip(*pairs, strict=True))
  return np.asarray(flow.variational_flow(first, second)), pairs


@pytest.mark.parametrize("case", range(4))
def test_edges_equal_the_golden_ones(case):
  edges = flow_edges.flow_edges(GOLDEN[f"flow{case}"].astype(np.float32))
  expected = GOLDEN[f"edge{case}/clamped"]
  np.testing.assert_allclose(edges, expected, atol=1e-4)
  raw = flow_edges.flow_edges(GOLDEN[f"flow{case}"].astype(np.float32), limit=np.inf)
  np.testing.assert_allclose(raw, GOLDEN[f"edge{case}/raw"], atol=1e-4)
  strength = float(edges.mean())
  np.testing.assert_allclose(
    [strength, strength / 10], GOLDEN[f"edge{case}/mean"], atol=1e-5
  )


@pytest.mark.parametrize("case", range(4))
def test_encoded_edges_equal_the_golden_ones(case):
  expected = GOLDEN[f"edge{case}/uint8"].astype(int)
  encoded = motion_codec.encode(GOLDEN[f"edge{case}/raw"], "edges")
  sensitive = np.unpackbits(GOLDEN[f"edge{case}/uint8_sensitive"])[: expected.size]
  difference = np.abs(np.asarray(encoded).astype(int) - expected)
  assert encoded.dtype == jnp.uint8
  assert (difference <= sensitive.reshape(expected.shape)).all()


def test_decoded_edges_are_within_half_a_step():
  edges = np.linspace(0, 10, 5001, dtype=np.float32)
  decoded = np.asarray(motion_codec.encode(edges, "edges")) * (10 / 255)
  assert np.abs(decoded - edges).max() <= 10 / 510 + 1e-6
  np.testing.assert_array_equal(
    motion_codec.encode(np.arange(256, dtype="f") * (10 / 255), "edges"), np.arange(256)
  )


def test_edges_of_many_frames_are_those_of_each():
  frames = np.random.default_rng(0).standard_normal((2, 3, 9, 11, 2)).astype("f")
  edges = flow_edges.flow_edges(frames)
  assert edges.shape == (2, 3, 9, 11)
  np.testing.assert_allclose(edges[1, 2], flow_edges.flow_edges(frames[1, 2]))


def test_a_shift_by_a_pixel_is_found_in_small_frames():
  large = texture(0, 22, 33)[None]
  found = flow.variational_flow(large[:, 2:, 1:], large[:, 2:, :-1], smallest=10)[0]
  assert end_point_error(found, [1, 0], border=4) < 0.05


@pytest.mark.slow
def test_flow_of_half_the_resolution_is_nearly_as_good(estimates):
  first, second, truth = map(np.stack, zip(*estimates[1], strict=True))
  coarse = flow.variational_flow(first, second, warps=2, fixed_points=1, finest=1)
  assert coarse.shape == truth.shape
  errors = [end_point_error(*pair) for pair in zip(coarse, truth, strict=True)]
  assert max(errors) < 0.2
  few = flow.variational_flow(first[:1], second[:1], finest=9, warps=1, iterations=1)
  assert few.shape == truth[:1].shape  # the coarsest level there is


@pytest.mark.slow
@pytest.mark.parametrize("motion", MOTIONS)
def test_known_motions_are_found(estimates, motion):
  index = list(MOTIONS).index(motion)
  found, pairs = estimates
  assert end_point_error(found[index], pairs[index][2], border=10) < 0.1


@pytest.mark.slow
def test_mirrored_frames_have_the_mirrored_flow(estimates):
  found, pairs = estimates
  first, second, _ = map(np.stack, zip(*pairs, strict=True))
  mirrored = flow.variational_flow(first[:, :, ::-1], second[:, :, ::-1])
  expected = found[:, :, ::-1] * np.array([-1, 1], np.float32)
  np.testing.assert_allclose(mirrored, expected, atol=5e-3)


@pytest.mark.slow
def test_equal_frames_have_no_flow():
  frames = np.stack([np.full_like(texture(0), 90), *map(texture, range(5))])
  np.testing.assert_array_equal(flow.variational_flow(frames, frames), 0)


@pytest.mark.slow
def test_a_batch_of_bytes_is_its_members_in_floats(estimates):
  found, pairs = estimates
  first, second = (np.float32(frame[None] / 255) for frame in pairs[2][:2])
  np.testing.assert_allclose(
    flow.variational_flow(first, second)[0], found[2], atol=1e-3
  )


@pytest.mark.slow
def test_a_change_of_light_moves_nothing(estimates):
  pairs = estimates[1]
  first, second, truth = (np.stack([pair[i] for pair in pairs]) for i in range(3))
  darker, lighter = first // 2 + 40, second // 2 + 50  # by 10 of 255 grey levels
  found = flow.variational_flow(darker, lighter)
  for error in map(end_point_error, found, truth, [10] * len(pairs)):
    assert error < 0.2


def real_pair(name):
  """Two frames and the true flow at 128x171, the size that motion statistics use."""
  folder = REAL / {"whale": "rubberwhale_middlebury", "chairs": "flyingchairs"}[name]
  if not folder.exists():
    pytest.skip("no real flow data")
  frames = [cv2.imread(str(p)) for p in sorted(folder.glob("*[01].p[np][gm]"))]
  header = next(folder.glob("*.flo")).read_bytes()
  width, height = np.frombuffer(header, "<i4", 2, 4)
  truth = np.frombuffer(header, "<f4", -1, 12).reshape(height, width, 2)
  known = (np.abs(truth) < 1e9).all(-1, keepdims=True)
  size = (171, 128)
  share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
  small = cv2.resize(
    np.where(known, truth, 0).astype("f"), size, interpolation=cv2.INTER_AREA
  )
  small = small / np.maximum(share, 0.01)[..., None] * [171 / width, 128 / height]
  frames = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames]
  return *frames, small, share > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whale", "chairs"])
def test_real_pairs_are_nearer_the_truth_than_opencv(name):
  first, second, truth, known = real_pair(name)
  gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in (first, second)]
  farneback = cv2.calcOpticalFlowFarneback(*gray, None, 0.5, 5, 11, 3, 5, 1.1, 0)
  inverse_search = cv2.DISOpticalFlow_create(2).calc(*gray, None)
  found = flow.variational_flow(first[None, ..., ::-1], second[None, ..., ::-1])[0]
  error, *others = (
    np.linalg.norm(np.asarray(f) - truth, axis=-1)[known].mean()
    for f in (found, farneback, inverse_search, np.zeros_like(truth))
  )
  assert error < min(others)
