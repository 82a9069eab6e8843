"""Clips with prepared flow, and the labels of MAS that are made of it."""

import flow_sets
import jax
import media_files
import numpy as np
import pytest
from test_mas import batch, smoke

from motion_jax.config import UserError
from motion_jax.data import motion_codec
from motion_jax.data.flow_clips import FlowClip
from motion_jax.data.sources import DecodeError, Record
from motion_jax.methods import make_method

_OPTIONS = dict(frames=5, interval=1, short_side=48, canvas=(48, 80), fps=0.0)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
  """Flow whose u tells the number of its frame, of videos of 40 and of 3 frames."""
  level = flow_sets.number_frames(40)
  frames = np.concatenate([level, np.full_like(level, 128)], -1)
  videos = {"v": (frames, np.ones(40)), "short": (frames[:3], np.ones(3))}
  path = tmp_path_factory.mktemp("flow") / "set"
  return flow_sets.write_set(path, videos, store="flow")


def record(name="v", count=40):
  return Record(name, "video", media_files.video_bytes(count))


def test_every_frame_but_the_first_has_its_own_flow(flow):
  sampler = FlowClip(flow, middle=False, **_OPTIONS)
  sample = sampler(record(), np.random.default_rng(3))
  # The canvas is narrower than the frames: pictures and flow lose the same columns.
  numbers = [round(frame[..., 0].mean() / 6) for frame in sample["flow"]]
  assert np.diff(numbers).tolist() == [1, 1, 1]
  whole = FlowClip(flow, middle=False, **{**_OPTIONS, "canvas": (48, 96)})
  shown = [
    media_files.number_of(frame)
    for frame in whole(record(), np.random.default_rng(3))["video"]
  ]
  assert shown[1:] == numbers
  assert {k: (v.shape, v.dtype) for k, v in sample.items()} == {
    k: (v.shape, v.dtype) for k, v in sampler.empty().items()
  }


def test_held_out_clips_are_the_middle_ones(flow):
  sampler = FlowClip(flow, middle=True, **_OPTIONS)
  one, other = (sampler(record(), np.random.default_rng(seed)) for seed in (0, 1))
  for name, array in one.items():
    np.testing.assert_array_equal(array, other[name])
  assert round(one["flow"][0, ..., 0].mean() / 6) == 18


def test_the_last_frame_of_a_short_video_repeats_without_motion(flow):
  sample = FlowClip(flow, middle=False, **_OPTIONS)(
    record("short", 3), np.random.default_rng(0)
  )
  u = sample["flow"][..., 0].mean((1, 2))
  np.testing.assert_allclose(u, [6, 12, motion_codec.ZERO_FLOW, motion_codec.ZERO_FLOW])


def test_flow_of_another_version_of_a_video_is_refused(flow):
  with pytest.raises(DecodeError, match="prepared from 40 frames, but it has 30"):
    FlowClip(flow, middle=False, **_OPTIONS)(record("v", 30), np.random.default_rng(0))


def test_flow_of_half_the_resolution_is_stretched_and_keeps_its_values(flow):
  sampler = FlowClip(flow, middle=True, **_OPTIONS | dict(canvas=(48, 96)))
  head = flow.head("v")
  (stored,) = flow.frames(head, [18])
  assert stored.shape[:2] == (24, 48)
  frame = sampler(record(), np.random.default_rng(0))["flow"][0]
  assert frame.shape[:2] == (48, 96)
  assert frame[..., 0].mean() == pytest.approx(stored[..., 0].mean(), abs=1)


def test_flow_of_another_shape_than_the_video_is_refused(flow):
  square = Record("v", "video", media_files.video_bytes(40, size=(48, 48)))
  with pytest.raises(DecodeError, match="48x24 and the video 48x48"):
    FlowClip(flow, middle=False, **_OPTIONS)(square, np.random.default_rng(0))


@pytest.mark.parametrize("change", [dict(interval=2), dict(fps=30.0)])
def test_frames_that_are_not_neighbours_are_refused(flow, change):
  with pytest.raises(UserError, match=r"data\.flow=''"):
    FlowClip(flow, middle=False, **_OPTIONS | change)


@pytest.mark.slow
def test_prepared_flow_is_that_which_the_step_computes():
  method, rows = make_method(smoke(flow_level=0)), batch()
  crop = jax.jit(method.crop)
  computed = np.asarray(crop(rows, None)[1])
  # What a preparation stores: the flow of a frame back to the one before.
  backwards = jax.jit(method.flow)(rows["video"][:, ::-1], rows["extent"])
  back = np.asarray(backwards)[:, ::-1]
  stored = np.rint(back / motion_codec.LIMITS["flow"] * 127 + 128).astype(np.uint8)
  prepared = np.asarray(crop(rows | {"flow": stored}, None)[1])
  # The square moves by 2 pixels, to the right in both.
  moving = np.linalg.norm(computed, axis=-1) > 1
  assert moving.mean() > 0.05
  assert np.median(prepared[moving][:, 0]) == pytest.approx(2, abs=0.3)
  assert np.median(computed[moving][:, 0]) == pytest.approx(2, abs=0.3)
