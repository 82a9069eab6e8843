"""Label pools and window positions of MoSI against golden numbers."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from motion_jax.ops import trajectory
from motion_jax.ops.draws import integers
from motion_jax.ops.label_pool import label_pool

GOLDEN = Path(__file__).parent / "golden"
POOLS = json.loads((GOLDEN / "mosi_label_pools.json").read_text())


@pytest.mark.parametrize(
  "golden",
  POOLS,
  ids=lambda g: f"{g['C']}-{g['axes']}-{g['decoupled']}-{g['without_zero']}",
)
def test_label_pools_equal_the_official_ones(golden):
  pool = label_pool(
    golden["K"],
    axes=golden["axes"],
    static=not golden["without_zero"],
    decoupled=golden["decoupled"],
  )
  assert pool.num_classes == golden["n"]
  for field in ("speeds", "joint", "separate_x", "separate_y"):
    np.testing.assert_array_equal(getattr(pool, field), golden[field])


def test_the_pool_of_the_paper_has_nine_classes_and_ends_with_the_static_one():
  pool = label_pool()
  assert pool.num_classes == 9
  assert pool.speeds[3].tolist() == [2, 0]
  assert pool.speeds[8].tolist() == [0, 0]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(speeds=0), "1 or more, found 0"),
    (dict(axes="z"), "x, y, xy; found 'z'"),
    (dict(axes="x", decoupled=False), "needs axes='xy', found 'x'"),
  ],
)
def test_impossible_pools_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    label_pool(**options)


@pytest.fixture(scope="module")
def rows():
  with np.load(GOLDEN / "mosi.npz") as golden:
    names = ("rows", "rows_float", "exact", "near_integer")
    return {name: golden[f"positions/{name}"] for name in names}


def _groups(rows, exact_distance):
  """Yields (indices, steps, frames) of rows with (or without) distance factor 1."""
  keep = (rows["rows_float"][:, 0] == 1) == exact_distance
  for steps in np.unique(rows["rows"][:, 2]):
    for frames in np.unique(rows["rows"][:, 4]):
      match = (rows["rows"][:, 2] == steps) & (rows["rows"][:, 4] == frames) & keep
      if match.any():
        yield np.flatnonzero(match), int(steps), int(frames)


def _path(rows, index, steps, frames, distance):
  side, crop, _, speed = rows["rows"][index, :4].T
  start = rows["rows_float"][index, 1].astype(np.int32)
  moved = jax.jit(
    lambda start, speed, margin, distance: trajectory.positions(
      start, speed, margin=margin, steps=steps, frames=frames, distance=distance
    )
  )(start, speed, side - crop, distance)
  assert moved.dtype == np.int32
  return np.asarray(moved)


def test_positions_at_exact_speeds_equal_rational_arithmetic(rows):
  count = 0
  for index, steps, frames in _groups(rows, exact_distance=True):
    found = _path(rows, index, steps, frames, None)
    np.testing.assert_array_equal(found, rows["exact"][index, :frames])
    count += len(index)
  assert count == 900


def test_positions_with_distance_jitter_differ_only_beside_whole_pixels(rows):
  count = 0
  for index, steps, frames in _groups(rows, exact_distance=False):
    distance = rows["rows_float"][index, 0].astype(np.float32)
    found = _path(rows, index, steps, frames, distance)
    difference = found - rows["exact"][index, :frames]
    allowed = rows["near_integer"][index, :frames]
    assert (abs(difference) <= allowed).all()
    count += len(index)
  assert count == 1485


@pytest.mark.parametrize("exact_distance", [True, False])
def test_start_ranges_equal_the_official_ones(rows, exact_distance):
  count = 0
  for index, steps, _ in _groups(rows, exact_distance):
    index = index[rows["rows"][index, 5] == 1]
    side, crop, _, speed, _, _, low, high = rows["rows"][index].T
    distance = rows["rows_float"][index, 0].astype(np.float32)
    found = trajectory.start_range(
      side - crop, speed, steps=steps, distance=None if exact_distance else distance
    )
    np.testing.assert_array_equal(found[0], low)
    np.testing.assert_array_equal(found[1], high)
    count += len(index)
  assert count == (495 if exact_distance else 1485)


def test_evaluation_starts_equal_the_official_ones(rows):
  evaluation = rows["rows"][:, 5] == 0
  assert evaluation.sum() > 200
  for steps in np.unique(rows["rows"][:, 2]):
    match = evaluation & (rows["rows"][:, 2] == steps)
    side, crop, _, speed = rows["rows"][match, :4].T
    found = trajectory.centred_start(side - crop, speed, steps=int(steps))
    np.testing.assert_array_equal(found, rows["rows_float"][match, 1])


def test_a_factor_of_one_gives_the_exact_positions():
  margin, speed = np.meshgrid(np.arange(1, 2000, 7), [-3, -1, 0, 2, 3])
  start = trajectory.centred_start(margin, speed, steps=3)
  exact, near = (
    trajectory.positions(
      start, speed, margin=margin, steps=3, frames=16, distance=distance
    )
    for distance in (None, np.ones(margin.shape, np.float32))
  )
  np.testing.assert_array_equal(exact, near)


def test_one_frame_cannot_move():
  with pytest.raises(ValueError, match="2 or more frames, found 1"):
    trajectory.positions(0, 1, margin=10, steps=1, frames=1)


def test_integers_are_uniform_and_include_both_ends():
  unit = jax.random.uniform(jax.random.key(0), (60000,))
  count = np.bincount(np.asarray(integers(unit, 2, 7)), minlength=10)
  assert (count[:2] == 0).all() and (count[8:] == 0).all()
  # Six bins of 10000: five standard deviations are 456.
  assert abs(count[2:8] - 10000).max() < 456
  ends = np.float32([0, np.nextafter(np.float32(1), np.float32(0))])
  assert integers(ends, 0, 426).tolist() == [0, 426]
