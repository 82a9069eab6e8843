"""The four clips of motion distillation, and the prepared motion they are read from."""

import pickle
import threading

import cv2
import flow_sets
import media_files
import numpy as np
import pytest

from motion_jax.config import UserError
from motion_jax.data import clips, disk, flow_files, flow_records, pipeline
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.flow_records import resize_motion
from motion_jax.data.motion import Distill, choose_windows
from motion_jax.data.sources import DecodeError, Record
from motion_jax.training.bad_files import BadFiles

_SIZES = {"short_side": 48, "canvas": (48, 96), "fps": 0.0}
_COUNT = 40


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
  """Motion of two videos of 40 frames; 'v' moves in its last quarter only."""
  strengths = np.zeros(_COUNT)
  strengths[30:] = 0.04
  frames = flow_sets.number_frames(_COUNT)
  videos = {"other": (frames[:7], np.ones(7)), "v": (frames, strengths)}
  return flow_sets.write_set(tmp_path_factory.mktemp("flow") / "set", videos)


@pytest.fixture(scope="module")
def record():
  return Record("v", "video", media_files.video_bytes(_COUNT))


def _sampler(flow, frames=3, interval=4, motion=6, motion_interval=2, **options):
  return Distill(
    frames,
    interval,
    motion_frames=motion,
    motion_interval=motion_interval,
    flow=flow,
    **{**_SIZES, **options},
  )


def _numbers(sample):
  """Frame numbers that the pictures of a sample show: visual, motion."""
  visual = [[media_files.number_of(f) for f in clip] for clip in sample["video"]]
  motion = np.rint(sample["motion"][..., 0].mean((2, 3)) / 6).astype(int)
  return np.array(visual), motion


def test_motion_frames_are_read_by_number(flow, monkeypatch):
  head, decoded = flow.head("v"), []
  decode = flow_files.decode_frame
  monkeypatch.setattr(
    flow_files, "decode_frame", lambda *a: (decoded.append(1), decode(*a))[1]
  )
  indices = [39, 0, 31, 32, 33, 31, 5]  # over the border of two records
  frames = flow.frames(head, indices)
  assert [round(f.mean() / 6) for f in frames] == indices
  assert {f.shape for f in frames} == {(24, 48, 1)}
  assert len(decoded) == 6  # not the whole video
  assert (len(flow), head.num_frames, head.height, head.width) == (2, 40, 24, 48)
  np.testing.assert_allclose(head.strengths[[29, 30]], [0, 0.04])


def test_two_channels_survive_the_encoding():
  y, x = np.mgrid[:30, :42]
  frame = np.stack([128 + x, 100 + 2 * y], -1).astype(np.uint8)
  again = flow_files.decode_frame(flow_files.encode_frame(frame), 2)
  assert again.shape == frame.shape
  assert np.abs(again.astype(int) - frame).max() <= 4


@pytest.mark.parametrize("synchronised", [False, True])
def test_a_sample_has_the_promised_arrays(flow, record, synchronised):
  sampler = pickle.loads(pickle.dumps(_sampler(flow, synchronised=synchronised)))
  sample, empty = sampler(record, np.random.default_rng(0)), sampler.empty()
  shapes = {
    "video": (2, 3, 48, 96, 3),
    "extent": (2, 2),
    "motion": (2, 6, 48, 96, 1),
    "strength": (2,),
    "pass_rate": (),
  }
  for part in (sample, empty):
    assert {name: array.shape for name, array in part.items()} == shapes
  assert {k: v.dtype for k, v in sample.items()} == {
    k: v.dtype for k, v in empty.items()
  }
  assert sample["extent"].tolist() == [[48, 96]] * 2
  visual, motion = _numbers(sample)
  for clip in motion:
    assert clip.tolist() == np.trunc(np.linspace(clip[0], clip[0] + 11, 6)).tolist()
  for clip in visual:
    assert clip[-1] - clip[0] in (11, 12) and clip[0] <= 28
  if synchronised:
    assert len({*visual[:, 0], *motion[:, 0]}) == 1


def test_the_same_generator_gives_the_same_sample(flow, record):
  sampler = _sampler(flow, threshold=0.01)
  one, two, other = (sampler(record, np.random.default_rng(s)) for s in (1, 1, 2))
  assert all(np.array_equal(one[name], two[name]) for name in one)
  assert not np.array_equal(one["motion"], other["motion"])


@pytest.mark.parametrize(("gamma", "scale"), [(0.0, "1"), (0.015, "1"), (0.15, "10")])
def test_windows_are_drawn_alike_among_those_that_move_enough(flow, gamma, scale):
  strengths = flow.head("v").strengths * float(scale)
  allowed, means = [], {}
  for start in range(_COUNT - 12 + 1):  # brute force
    frames = [int(start + 11 * k / 5) for k in range(6)]
    means[start] = np.mean([strengths[frame] for frame in frames])
    if means[start] >= gamma:
      allowed.append(start)
  assert len(allowed) == (29 if gamma == 0 else 5)
  sampler = _sampler(flow, threshold=gamma, edge_scale=scale)
  rng, head, drawn = np.random.default_rng(0), flow.head("v"), []
  for _ in range(500):
    plan = sampler._plan(head, _COUNT, 25.0, rng.random((2, 2)))
    starts = plan["motion"][:, 0].tolist()
    drawn += starts
    np.testing.assert_allclose(plan["strength"], [means[s] for s in starts], rtol=1e-5)
    assert plan["pass_rate"] == pytest.approx(len(allowed) / 29)
  counts = np.bincount(drawn, minlength=_COUNT)
  assert np.flatnonzero(counts).tolist() == allowed
  expected = 1000 / len(allowed)
  assert np.abs(counts[allowed] - expected).max() < 4.5 * expected**0.5


def test_the_four_times_are_independent(flow):
  sampler, rng = _sampler(flow), np.random.default_rng(0)
  head = flow.head("v")
  firsts = []
  for _ in range(400):
    plan = sampler._plan(head, _COUNT, 25.0, rng.random((2, 2)))
    visual = plan["visual"].reshape(2, -1)
    firsts.append([*visual[:, 0], *plan["motion"][:, 0]])
  correlation = np.corrcoef(np.array(firsts).T)
  assert np.abs(correlation - np.eye(4)).max() < 0.2


def test_the_strongest_window_stands_in_when_none_passes(flow, record):
  sample = _sampler(flow, threshold=0.5)(record, np.random.default_rng(3))
  _, motion = _numbers(sample)
  assert motion[:, 0].tolist() == [28, 28] and sample["pass_rate"] == 0
  np.testing.assert_allclose(sample["strength"], 0.04 * 5 / 6, rtol=1e-5)


def test_windows_are_chosen_by_their_means():
  means, draws = np.array([0.1, 0.5, 0.3]), np.array([0.0, 0.99])
  assert choose_windows(means, 0.2, draws).tolist() == [1, 2]
  assert choose_windows(means, 0.6, draws).tolist() == [1, 1]


@pytest.mark.parametrize("synchronised", [False, True])
def test_pairs_for_the_device_go_back_by_the_flow_interval(record, synchronised):
  sampler = _sampler(None, flow_interval=3, synchronised=synchronised)
  seen = set()
  for seed in range(8):
    sample = sampler(record, np.random.default_rng(seed))
    assert "motion" not in sample and sample["pass_rate"] == 1
    assert not sample["strength"].any()
    pairs = sample["motion_pairs"]
    assert pairs.shape == (2, 6, 2, 48, 96, 3) == sampler.empty()["motion_pairs"].shape
    numbers = np.array([media_files.number_of(f) for f in pairs.reshape(-1, 48, 96, 3)])
    numbers = numbers.reshape(12, 2)
    assert (numbers[:, 1] == np.maximum(numbers[:, 0] - 3, 0)).all()
    seen.add(int(numbers[0, 0]))
    if synchronised:
      assert {media_files.number_of(c[0]) for c in sample["video"]} == {numbers[0, 0]}
  assert len(seen) > 3


def test_a_threshold_without_prepared_motion_is_told(caplog):
  with caplog.at_level("WARNING", "motion_jax"):
    _sampler(None, threshold=0.02)
  assert "motion_threshold=0.02 has no effect" in caplog.text


def test_rgb_alone_reads_no_motion(record):
  sample = _sampler(None, motion=0)(record, np.random.default_rng(0))
  assert {*sample} == {"video", "extent", "strength", "pass_rate"}


@pytest.mark.parametrize(
  ("size", "canvas"),
  [((96, 160), (64, 100)), ((150, 90), (90, 50)), ((64, 90), (96, 96))],
)
def test_motion_lies_where_the_picture_moves(tmp_path, size, canvas):
  """A square moves over a larger frame; its edges are stored at half the size."""
  count, side = 20, 24
  pictures, edges = [], np.zeros((count, size[0] // 2, size[1] // 2, 1), np.uint8)
  for t in range(count):
    top, left = 10 + 2 * t, 8 + 2 * t
    picture = np.zeros((*size, 3), np.uint8)
    picture[top : top + side, left : left + side] = 250
    pictures.append(cv2.imencode(".png", picture)[1].tobytes())
    inside = slice(top // 2, (top + side) // 2), slice(left // 2, (left + side) // 2)
    edges[t][inside] = 250
  flow = flow_sets.write_set(tmp_path / "set", {"f": (edges, np.ones(count))})
  sampler = _sampler(flow, 6, 2, 6, 2, synchronised=True, short_side=64, canvas=canvas)
  record = Record("f", "frames", tuple(pictures))
  for seed in range(5):
    sample = sampler(record, np.random.default_rng(seed))
    visual = sample["video"][..., :1].astype(int)
    assert np.abs(visual - sample["motion"]).mean() < 6  # borders and compression
    for clip in range(2):
      for t in range(6):
        first, second = (
          np.argwhere(array[clip, t, ..., 0] > 125).mean(0)
          for array in (visual, sample["motion"])
        )
        assert np.abs(first - second).max() < 0.6


def test_no_edge_is_lost_where_frames_are_reduced():
  edges = np.zeros((64, 64, 1), np.uint8)
  edges[:, 5::8] = 200  # lines of one pixel
  small = resize_motion(edges, (16, 16))
  assert small.shape == (16, 16, 1)
  np.testing.assert_array_equal(small[:, 1::2], 50)
  assert not small[:, ::2].any()


@pytest.mark.parametrize("size", [(30, 41), (31, 40), (29, 40), (30, 39), (31, 39)])
@pytest.mark.parametrize("channels", [1, 2])
def test_sizes_that_differ_by_a_pixel_are_one_size(size, channels):
  frame = np.random.default_rng(0).integers(0, 256, (30, 40, channels), np.uint8)
  found = resize_motion(frame, size)
  rows, columns = (
    np.arange(side).clip(0, last) for side, last in zip(size, (29, 39), strict=True)
  )
  np.testing.assert_array_equal(found, frame[rows][:, columns])


def test_a_video_shorter_than_a_window_repeats_its_last_frame(tmp_path):
  frames = flow_sets.number_frames(5)
  flow = flow_sets.write_set(tmp_path / "set", {"s": (frames, np.ones(5))})
  record = Record("s", "video", media_files.video_bytes(5))
  sample = _sampler(flow, threshold=0.5)(record, np.random.default_rng(0))
  visual, motion = _numbers(sample)
  assert motion.tolist() == [[0, 2, 4, 4, 4, 4]] * 2
  assert visual.tolist() == [[0, 4, 4]] * 2 and sample["pass_rate"] == 1


def test_motion_of_another_version_of_a_video_is_a_decode_error(tmp_path):
  frames = flow_sets.number_frames(9)
  videos = {name: (frames, np.ones(9)) for name in ("long", "cut")}
  videos["bad"] = (frames[:0], np.ones(0))
  damage = {"cut": "damaged; 9 frames were used", "bad": "no video stream"}
  flow = flow_sets.write_set(tmp_path / "set", videos, damage=damage)
  sampler, rng = _sampler(flow), np.random.default_rng(0)
  media = media_files.video_bytes(12)
  with pytest.raises(DecodeError, match="prepared from 9 frames, but it has 12"):
    sampler(Record("long", "video", media), rng)
  with pytest.raises(DecodeError, match="no video stream"):
    sampler(Record("bad", "video", media), rng)
  _, motion = _numbers(sampler(Record("cut", "video", media), rng))
  assert motion.max() == 8


class _Stale:
  """Two videos; the motion of the second was prepared when it had 7 frames."""

  name, split, classes, labels = "x", "all", None, [-1, -1]

  def __len__(self):
    return 2

  def id_of(self, index):
    return ("v", "other")[index]

  def __getitem__(self, index):
    count = (_COUNT, 9)[index]
    return Record(self.id_of(index), "video", media_files.video_bytes(count))


def test_batches_hold_query_and_key(flow):
  batches = pipeline.make_pipeline(_Stale(), _sampler(flow), batch_size=2, seed=0)
  batch = next(iter(batches))
  assert batch["motion"].shape == (2, 2, 6, 48, 96, 1)
  assert batch["extent"].shape == (2, 2, 2)
  assert dict(zip(batch["index"].tolist(), batch["valid"].tolist(), strict=True)) == {
    0: True,
    1: False,
  }


def test_stale_motion_is_told_with_its_fix_where_bad_files_are(flow, tmp_path):
  sampler, path = _sampler(flow), tmp_path / "bad_files.txt"
  (batch,) = evaluation_batches(_Stale(), sampler, batch_size=2, seed=0)
  bad_files = BadFiles(_Stale(), path, 0.05)
  bad_files.update(batch)
  bad_files.settle()
  assert path.read_text().startswith("other\tits motion was prepared from 7 frames")
  path.write_text("v\tno video\n")  # as an earlier start found it
  too_many = BadFiles(_Stale(), path, 0.0)
  too_many.update({name: array[1:] for name, array in batch.items()})
  with pytest.raises(UserError, match=r"such as other: .*prepare the motion again"):
    too_many.settle()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"threshold": -1.0}, "threshold -1.0"),
    ({"motion_interval": 0}, "at least 1"),
    ({"edge_scale": "255"}, "data.edge_scale"),
  ],
)
def test_senseless_settings_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    _sampler(None, **options)


def test_a_damaged_or_older_set_is_refused(tmp_path):
  frames = flow_sets.number_frames(3)
  flow = flow_sets.write_set(tmp_path / "set", {"s": (frames, np.ones(3))})
  older = flow.description | {"limit": 5.0}
  disk.write_json(flow.path / "description.json", older)
  with pytest.raises(UserError, match=r"another version.*'limit': 5\.0"):
    flow_records.FlowRecords(flow.path)
  (flow.path / "index.json").unlink()
  with pytest.raises(UserError, match="damaged"):
    flow_records.FlowRecords(flow.path)


def test_four_clips_take_one_pass_over_the_video(flow, record, monkeypatch):
  callers = []
  read = clips.read_record

  def counted(*arguments):
    callers.append(threading.get_ident())
    return read(*arguments)

  monkeypatch.setattr("motion_jax.data.motion.read_record", counted)
  _sampler(None)(record, np.random.default_rng(0))
  # Pipelines of earlier tests may still be decoding ahead, in threads of their own.
  assert callers.count(threading.get_ident()) == 1
