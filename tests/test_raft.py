"""RAFT against golden numbers of the official program; its weights files."""

import functools

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.data import motion_codec
from motion_jax.flow_sets import batches
from motion_jax.models import common, raft, raft_weights
from motion_jax.models.torch_file import save_torch

PAIRS = (0, 1)


@functools.cache
def model(size):
  return raft_weights.import_raft(
    raft.Raft(size), golden_weights.weights(f"net_raft_{size}")
  )


@functools.cache
def golden(size):
  return golden_weights.arrays(f"net_raft_{size}")


def images(size, pair):
  """Both frames [1, H, W, 3] uint8."""
  return [golden(size)[f"pair{pair}/image{i}"][None] for i in (1, 2)]


def normalised(size, pair):
  return [2 * np.float32(image) / 255 - 1 for image in images(size, pair)]


def channels_first(array):
  return np.moveaxis(np.asarray(array), -1, 1)


@pytest.mark.parametrize(("size", "count"), [("large", 5_257_536), ("small", 990_162)])
def test_parameter_counts_are_the_official_ones(size, count):
  assert common.parameter_count(raft.Raft(size)) == count


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("size", raft.SIZES)
def test_features_and_lookups_equal_the_golden_ones(size, pair):
  first, second = normalised(size, pair)
  network = model(size)

  @jax.jit
  def compute(first, second):
    features = network.fnet(jnp.concatenate([first, second]))
    one, two = jnp.split(features, 2)
    shift = jnp.broadcast_to(jnp.array([1.3, -2.6]), (*one.shape[:3], 2))
    found = raft.look_up(raft.correlation_pyramid(one, two), shift, network.radius)
    return {"fmap1": one, "fmap2": two, "cnet": network.cnet(first), "lookup": found}

  for name, value in compute(first, second).items():
    prefix = f"pair{pair}/{name}"
    value = channels_first(value)
    assert value.shape == tuple(golden(size)[f"{prefix}/shape"])
    expected = golden(size)[f"{prefix}/sample"]
    limit = 1e-4 * max(1, golden(size)[f"{prefix}/moments"][2])
    sample = value.ravel()[golden(size)[f"{prefix}/sample_index"]]
    np.testing.assert_allclose(sample, expected, atol=limit, rtol=0)


def assert_golden_flow(size, prefix, flow, limits):
  low, up = (channels_first(value) for value in flow)
  stored = golden(size)
  np.testing.assert_allclose(low, stored[f"{prefix}/flow_low"], atol=limits[0], rtol=0)
  sample = up.ravel()[stored[f"{prefix}/flow_up_index"]]
  expected = stored[f"{prefix}/flow_up_sample"]
  np.testing.assert_allclose(sample, expected, atol=limits[1], rtol=0)
  expected = stored[f"{prefix}/flow_up_stride4"]
  np.testing.assert_allclose(up[:, :, 1::4, 2::4], expected, atol=limits[1], rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("iterations", "limits"), [(4, (1e-3, 5e-3)), (12, (5e-3, 3e-2))]
)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("size", raft.SIZES)
def test_flows_equal_the_golden_ones(size, pair, iterations, limits):
  network = model(size)
  flow = jax.jit(lambda *frames: network(*frames, iterations))(*normalised(size, pair))
  assert_golden_flow(size, f"pair{pair}/iters{iterations}", flow, limits)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_flows_with_batch_statistics_equal_the_golden_ones(pair):
  parts = common.split(model("large"))
  flow, _ = jax.jit(lambda *frames: common.call(*parts, *frames, 4, train=True))(
    *normalised("large", pair)
  )
  assert_golden_flow("large", f"pair{pair}/train_bn/iters4", flow, (1e-3, 5e-3))


def test_a_lookup_interpolates_between_neighbours_and_is_zero_outside():
  plane = np.arange(64, dtype=np.float32).reshape(1, 1, 1, 8, 8)
  plane = np.broadcast_to(plane, (1, 8, 8, 8, 8))
  found = raft.look_up([plane], jnp.zeros((1, 8, 8, 2)), 1)
  np.testing.assert_allclose(
    found[0, 4, 4], [27, 35, 43, 28, 36, 44, 29, 37, 45], rtol=1e-6
  )
  np.testing.assert_allclose(found[0, 0, 0], [0, 0, 0, 0, 0, 8, 0, 1, 9])
  shift = jnp.broadcast_to(jnp.array([0.25, 0.5]), (1, 8, 8, 2))
  np.testing.assert_allclose(
    raft.look_up([plane], shift, 0)[0, 2, 3, 0], 2.5 * 8 + 3.25, rtol=1e-6
  )


@pytest.mark.slow
def test_odd_sizes_are_padded_evenly_and_cut_back():
  first, second = (image[:, :100, :135] for image in images("small", 0))
  flow = raft.raft_flow(model("small"), first, second, 2)
  assert flow.shape == (1, 100, 135, 2)
  pads = [(0, 0), (14, 14), (0, 1), (0, 0)]
  padded = [np.pad(image, pads, mode="edge") for image in (first, second)]
  expected = raft.raft_flow(model("small"), *padded, 2)[:, 14:114, :135]
  np.testing.assert_allclose(flow, expected, atol=1e-3)
  scaled = [np.float32(image) / 255 for image in (first, second)]
  np.testing.assert_allclose(
    raft.raft_flow(model("small"), *scaled, 2), flow, atol=1e-3
  )


def official_state(size):
  """As the official program saves: a prefix, second names, counters."""
  state = {}
  for name, value in golden_weights.weights(f"net_raft_{size}").items():
    for written in {name, name.replace("norm3", "downsample.1")}:
      state[f"module.{written}"] = value
      if written.endswith("running_var"):
        counter = written.replace("running_var", "num_batches_tracked")
        state[f"module.{counter}"] = np.zeros(1, np.float32)
  return state


@pytest.mark.parametrize(("size", "entries"), [("large", 179), ("small", 106)])
def test_official_files_are_loaded(size, entries, tmp_path):
  state = official_state(size)
  assert len(state) == entries
  save_torch(tmp_path / "raft.pth", state)
  loaded = raft_weights.load_raft(tmp_path / "raft.pth")
  assert loaded.size == size
  jax.tree.map(
    np.testing.assert_array_equal,
    common.split(loaded)[1:],
    common.split(model(size))[1:],
  )


def test_files_that_do_not_fit_are_refused(tmp_path):
  large, small = official_state("large"), official_state("small")
  with pytest.raises(ValueError, match=r"'small'.*missing.*unknown.*other size"):
    raft_weights.import_raft(raft.Raft("small"), large)
  partial = dict(small)
  del partial["module.fnet.conv2.bias"]
  with pytest.raises(ValueError, match=r"1 names \(fnet\.conv2\.bias\) missing, none"):
    raft_weights.import_raft(raft.Raft("small"), partial)
  with pytest.raises(ValueError, match=r"fnet\.conv2\.bias has shape \(3,\)"):
    wrong = small | {"module.fnet.conv2.bias": np.zeros(3)}
    raft_weights.import_raft(raft.Raft("small"), wrong)
  name = "module.cnet.layer2.0.downsample.1.weight"
  with pytest.raises(ValueError, match="different values"):
    raft_weights.import_raft(raft.Raft("large"), large | {name: large[name] + 1})
  save_torch(tmp_path / "other.pth", {"fc.bias": np.zeros(3, np.float32)})
  with pytest.raises(ValueError, match=r"other\.pth holds no RAFT weights: found fc"):
    raft_weights.load_raft(tmp_path / "other.pth")


@pytest.mark.slow
def test_prepared_motion_is_the_flow_of_the_weights_file(tmp_path):
  save_torch(tmp_path / "raft.pth", official_state("small"))
  first, second = (image[0, :100, :150] for image in images("small", 0))
  work = batches.FlowBatches(
    "raft",
    str(tmp_path / "raft.pth"),
    {"size": "small", "iterations": 2},
    store="flow",
    batch_size=1,
    receive=np.array,
  )
  video = batches.VideoMotion("video")
  work.add(video, first, second)
  work.flush()
  sides = [(0, -side % 32) for side in first.shape[:2]]
  one, two = (np.pad(x, [*sides, (0, 0)], mode="edge")[None] for x in (first, second))
  flow = raft.raft_flow(model("small"), one, two, 2)[0, :100, :150]
  assert np.abs(flow).max() > 0.1  # weights are made up, but do something
  (stored,) = video.frames
  found = np.asarray(motion_codec.decode_flow(stored))
  np.testing.assert_allclose(found, np.clip(flow, -20, 20), atol=0.1)


def test_unknown_sizes_and_frames_are_refused():
  with pytest.raises(ValueError, match="'huge' is unknown; use one of large, small"):
    raft.Raft("huge")
  frames = jnp.zeros((1, 128, 128, 3))
  with pytest.raises(ValueError, match=r"\[B, H, W, 3\]"):
    raft.raft_flow(model("small"), frames, frames[..., :1])
