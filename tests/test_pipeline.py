"""Batches: order, hosts, resuming, bad files."""

import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time

import children
import cv2
import media_files
import numpy as np
import pytest

from motion_jax.config import UserError
from motion_jax.data import Record, clips, host, open_source, pipeline
from motion_jax.data.clips import SourceFrame, Views
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.rows import for_devices
from motion_jax.training.bad_files import BadFiles

_SAMPLER = SourceFrame(16, (16, 20))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Eleven small noise images, one of them damaged, and a video."""
  root = tmp_path_factory.mktemp("images")
  for number in range(11):
    image = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
    cv2.imwrite(str(root / f"{number:02d}_{number * number}.png"), image)
  (root / "05_25.png").write_bytes(b"damaged")
  media_files.write_video(root / "video.mp4", 20)
  return root


def _batches(source, count, **options):
  options = {"batch_size": 4, "seed": 3, "threads": 2} | options
  stream = iter(pipeline.make_pipeline(source, _SAMPLER, **options))
  return [next(stream) for _ in range(count)]


def _assert_equal(first, second):
  assert first.keys() == second.keys()
  for key in first:
    np.testing.assert_array_equal(first[key], second[key])


def test_a_batch_has_fixed_shapes_and_types(folder):
  batch = for_devices(_batches(open_source(folder, split="all"), 1)[0])
  assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
    "image": ((4, 16, 20, 3), "uint8"),
    "extent": ((4, 2), "int32"),
    "label": ((4,), "int32"),
    "index": ((4,), "int32"),
    "valid": ((4,), "bool"),
  }


def test_every_epoch_has_every_record_once_in_a_new_order(folder):
  source = open_source(folder, split="all")
  order = np.concatenate([b["index"] for b in _batches(source, 6)]).reshape(2, 12)
  assert [sorted(epoch) for epoch in order.tolist()] == [list(range(12))] * 2
  assert order[0].tolist() != order[1].tolist()


def test_the_seed_alone_decides_the_batches(folder):
  source = open_source(folder, split="all")
  first = _batches(source, 4)
  for one, two in zip(first, _batches(source, 4, threads=5), strict=True):
    _assert_equal(one, two)
  assert (first[0]["index"] != _batches(source, 1, seed=4)[0]["index"]).any()


def test_samples_of_a_record_differ_between_epochs(folder):
  source = open_source(folder, split="all")
  frames = set()
  for batch in _batches(source, 24):
    rows = batch["index"] == len(source) - 1  # the video
    frames |= {image.tobytes() for image in batch["image"][rows]}
  assert len(frames) > 4


@pytest.mark.parametrize("hosts", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_hosts(folder, hosts):
  source = open_source(folder, split="all")
  parts = [
    _batches(source, 5, process_index=host, process_count=hosts)
    for host in range(hosts)
  ]
  for number, whole in enumerate(_batches(source, 5)):
    shares = [part[number] for part in parts]
    joined = {key: np.concatenate([share[key] for share in shares]) for key in whole}
    _assert_equal(joined, whole)


def test_a_source_smaller_than_a_batch_repeats(folder):
  batch = _batches(open_source(folder, split="all"), 1, batch_size=30)[0]
  assert np.bincount(batch["index"], minlength=12).min() >= 2


def test_resume_continues_with_the_next_batch(folder):
  source = open_source(folder, split="all")
  make = {"batch_size": 4, "seed": 3, "threads": 2}
  stream = iter(pipeline.make_pipeline(source, _SAMPLER, **make))
  for _ in range(4):
    next(stream)
  state = stream.get_state()
  expected = [next(stream) for _ in range(3)]
  again = iter(pipeline.make_pipeline(source, _SAMPLER, **make))
  again.set_state(state)
  for batch in expected:
    _assert_equal(next(again), batch)


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(folder):
  source = open_source(folder, split="all")
  in_workers = _batches(source, 5, workers=2)
  for one, two in zip(_batches(source, 5), in_workers, strict=True):
    _assert_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_training(folder, number):
  source = open_source(folder, split="all")
  make = dict(batch_size=4, seed=3, threads=1, workers=1)
  stream = iter(pipeline.make_pipeline(source, _SAMPLER, **make))
  next(stream)
  workers = multiprocessing.active_children()
  for worker in workers:  # as a terminal or a scheduler does
    os.kill(worker.pid, number)
  for _ in range(30):
    next(stream)
  assert workers and all(worker.is_alive() for worker in workers)
  stream.close()
  for worker in workers:
    worker.join(10)
  assert not any(worker.is_alive() for worker in workers)


# Prints the worker's number and is killed.
KILLED = """
import multiprocessing, os, signal, sys
from motion_jax.data import open_source, pipeline
from motion_jax.data.clips import SourceFrame
if __name__ == "__main__":
  source = open_source(sys.argv[1], split="all")
  make = dict(batch_size=4, seed=3, threads=1, workers=1)
  stream = iter(pipeline.make_pipeline(source, SourceFrame(16, (16, 20)), **make))
  next(stream)
  print(multiprocessing.active_children()[0].pid, flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_workers_end_with_a_training_that_is_killed(folder, tmp_path):
  script = tmp_path / "killed.py"
  script.write_text(KILLED)
  result = children.run([sys.executable, script, folder], env=children.environment(1))
  assert result.returncode == -signal.SIGKILL, result.stderr
  worker = pathlib.Path("/proc", result.stdout.strip(), "cmdline")
  patience = time.monotonic() + 10
  while worker.exists() and worker.read_bytes():  # a zombie's is empty
    assert time.monotonic() < patience
    time.sleep(0.05)


def test_a_bad_record_is_an_invalid_row_with_the_pixels_of_the_next(folder):
  source = open_source(folder, split="all")
  seen = 0
  for batch in _batches(source, 3):
    for row in range(4):
      bad = source.id_of(batch["index"][row]) == "05_25.png"
      assert batch["valid"][row] == (not bad)
      assert (batch["reason"][row] != b"") == bad
      assert batch["image"][row].any() and batch["extent"][row].all()
      if bad:
        for name in ("image", "extent"):
          np.testing.assert_array_equal(batch[name][row], batch[name][(row + 1) % 4])
      seen += bad
  assert seen == 1


def test_where_nothing_can_be_decoded_rows_are_zeros():
  stream = iter(pipeline.make_pipeline(_Source(9, 9), _SAMPLER, batch_size=4, seed=3))
  batch = next(stream)
  stream.close()
  assert not batch["valid"].any() and not batch["image"].any()


def test_evaluation_is_one_pass_in_order_of_one_shape(folder):
  source = open_source(folder, split="all")
  run = [
    list(evaluation_batches(source, _SAMPLER, batch_size=5, seed=1, threads=threads))
    for threads in (1, 3)
  ]
  for one, two in zip(*run, strict=True):
    _assert_equal(one, two)
  index = np.concatenate([batch["index"] for batch in run[0]])
  assert index.tolist() == [*range(12), -1, -1, -1]
  assert {batch["image"].shape for batch in run[0]} == {(5, 16, 20, 3)}
  assert not run[0][-1]["valid"][2:].any() and (run[0][-1]["label"][2:] == -1).all()


class _Source:
  """Records of which the first `bad` are damaged."""

  name, split, classes = "test", "train", None

  def __init__(self, count, bad):
    self._count, self._bad = count, bad

  def __len__(self):
    return self._count

  def id_of(self, index):
    return f"file{index}"

  def __getitem__(self, index):
    image = cv2.imencode(".png", np.ones((20, 24, 3), np.uint8))[1].tobytes()
    return Record(self.id_of(index), "image", b"" if index < self._bad else image)


def _feed(bad_files, source):
  for batch in evaluation_batches(source, _SAMPLER, batch_size=8, seed=0):
    assert "reason" not in bad_files.update(batch)
  bad_files.settle()


def test_bad_files_are_named_once_with_the_reason(tmp_path, caplog):
  source, path = _Source(40, 2), tmp_path / "bad_files.txt"
  bad_files = BadFiles(source, path, 0.05)
  with caplog.at_level("WARNING"):
    _feed(bad_files, source)
    _feed(bad_files, source)
  assert len(bad_files) == 2
  lines = path.read_text().splitlines()
  assert [line.split("\t")[0] for line in lines] == ["file0", "file1"]
  assert all("not an image" in line for line in lines)
  assert caplog.text.count("cannot decode file0") == 1
  caplog.clear()
  resumed = BadFiles(source, path, 0.05)
  _feed(resumed, source)
  assert not caplog.text and path.read_text().splitlines() == lines


def test_too_many_bad_files_stop_the_run(tmp_path):
  source = _Source(40, 3)
  bad_files = BadFiles(source, tmp_path / "bad_files.txt", 0.05)
  with pytest.raises(UserError, match=r"3 of the 40 .*data\.max_bad_fraction"):
    _feed(bad_files, source)


def test_one_bad_file_of_few_is_tolerated(tmp_path):
  source = _Source(3, 1)
  _feed(BadFiles(source, tmp_path / "bad_files.txt", 0.0), source)
  with pytest.raises(UserError, match="2 of the 3"):
    _feed(BadFiles(_Source(3, 2), tmp_path / "x", 0.0), _Source(3, 2))


def test_bad_files_of_another_source_do_not_count(tmp_path):
  path = tmp_path / "bad_files.txt"
  path.write_text("other1\tx\nother2\tx\nfile0\tx\n")
  assert len(BadFiles(_Source(3, 1), path, 0.0)) == 1


class _Slow(SourceFrame):
  """Takes a while, and notes how many do so at a time."""

  def __init__(self):
    super().__init__(16, (16, 20))
    self._lock = threading.Lock()
    self.taken = self.now = self.most = 0

  def __call__(self, record, rng):
    with self._lock:
      self.taken += 1
      self.now += 1
      self.most = max(self.most, self.now)
    time.sleep(0.02)
    with self._lock:
      self.now -= 1
    return super().__call__(record, rng)


@pytest.mark.parametrize("memory", [1, 2**30])
def test_all_threads_decode_however_large_a_batch_is(memory, monkeypatch):
  monkeypatch.setattr(host, "memory", lambda: memory)
  sampler, source = _Slow(), _Source(400, 0)
  make = dict(batch_size=40, seed=0, threads=6, workers=0)
  stream = iter(pipeline.make_pipeline(source, sampler, **make))
  next(stream)
  assert sampler.taken <= 2 * 40 + 2 * 6  # and not several batches for the first one
  for _ in range(3):
    next(stream)
  stream.close()
  assert sampler.most == 6


def test_awkward_videos_among_good_ones_do_not_stop_training(folder, tmp_path):
  misc = pathlib.Path(__file__).parents[2] / "shared" / "data" / "clips_misc"
  if not misc.exists():
    pytest.skip("needs shared/data/clips_misc")
  source = open_source(misc, split="all")
  _feed(BadFiles(source, tmp_path / "bad_files.txt", 0.5), source)
  named = {
    line.split("\t")[0]
    for line in (tmp_path / "bad_files.txt").read_text().splitlines()
  }
  hopeless = {
    "audio_only.mp4",
    "empty.mp4",
    "no_frames.avi",
    "no_frames.mkv",
    "text_named.mp4",
    "truncated_60pct_moov_at_end.mp4",
    "truncated_header_200B.mp4",
  }
  damaged = {
    "decord_corrupted.mp4",
    "truncated_60pct_moov_at_start.mp4",
    "zeroed_middle.mp4",
  }
  assert hopeless <= named <= hopeless | damaged


def test_all_clips_of_a_video_become_rows_and_a_bad_video_one(tmp_path):
  lengths = {"a.mp4": 12, "b.mp4": 30, "c.mp4": 3}
  for name, length in lengths.items():
    (tmp_path / name).write_bytes(media_files.video_bytes(length))
  (tmp_path / "d.mp4").write_bytes(b"no video")
  source = open_source(tmp_path, split="all")
  sampler = Views(0, 8, 1, fps=0.0, short_side=48, canvas=(48, 96))
  batches = list(evaluation_batches(source, sampler, batch_size=4, seed=0, threads=2))
  assert all(batch["video"].shape == (4, 8, 48, 96, 3) for batch in batches)
  rows = np.concatenate([batch["index"] for batch in batches])
  valid = np.concatenate([batch["valid"] for batch in batches])
  assert rows.tolist() == [0, 1, 1, 1, 2, 3, -1, -1]
  assert valid.tolist() == [True] * 5 + [False] * 3
  firsts = [media_files.number_of(clip[0]) for clip in batches[0]["video"]]
  assert firsts == [0, 0, 8, 16]


def test_a_long_video_that_is_damaged_late_has_a_last_row_that_is_not_valid(
  tmp_path, monkeypatch
):
  path = tmp_path / "a.mp4"
  media_files.write_video(path, 60, options={"movflags": "faststart"})
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) * 2 // 3])
  (tmp_path / "b.mp4").write_bytes(media_files.video_bytes(16))
  source = open_source(tmp_path, split="all")
  sampler = Views(0, 8, 1, fps=0.0, short_side=48, canvas=(48, 96))
  monkeypatch.setattr(clips, "_PART", 1)
  batches = list(evaluation_batches(source, sampler, batch_size=4, seed=0, threads=2))
  rows = np.concatenate([batch["index"] for batch in batches])
  valid = np.concatenate([batch["valid"] for batch in batches])
  first = valid[rows == 0]
  assert 1 < len(first) < 8 and first[:-1].all() and not first[-1]
  assert valid[rows == 1].tolist() == [True, True]
