"""Storage that fails is waited for; files that are damaged or gone are masked."""

import itertools
import pickle
import sys
import threading
import time

import cv2
import flow_sets
import media_files
import numpy as np
import pytest
from failing_storage import failing

from motion_jax.data import (
  flow_files,
  open_source,
  pipeline,
  record_files,
  rows,
  storage,
)
from motion_jax.data.clips import Clip, Views
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.sources import DecodeError, StorageFault
from motion_jax.flow_sets.frame_streams import frame_streams

pytestmark = pytest.mark.skipif(
  sys.platform != "linux", reason="lets storage fail by a file of Linux"
)
_SIZES = dict(short_side=48, canvas=(48, 96), fps=0.0)
_CLIP = Clip(4, 1, **_SIZES)


@pytest.fixture
def quick(monkeypatch):
  """Short pauses."""
  monkeypatch.setattr(storage, "_PAUSES", (0.05, 0.2))


@pytest.fixture
def videos(tmp_path):
  """A video, an image and a folder of frames, beside others."""
  folder = tmp_path / "videos"
  (folder / "take").mkdir(parents=True)
  for name in ("a.mp4", "b.mp4"):
    (folder / name).write_bytes(media_files.video_bytes(12))
  for name in ("c.png", *(f"take/{number}.png" for number in range(5))):
    cv2.imwrite(str(folder / name), media_files.picture(7))
  return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A data set, and its file of training videos."""
  root = tmp_path_factory.mktemp("data")
  source = open_source("synthetic_actions:tiny", data_dir=root)
  (shard,) = root.rglob("*-train.array_record*")
  return source, shard


def row_of(source, index, sampler=_CLIP):
  sample = rows.Rows(source, sampler)
  return sample.random_map(index, np.random.default_rng(3))


def same(row, expected):
  assert row.keys() == expected.keys()
  for name in row:
    np.testing.assert_array_equal(row[name], expected[name])


def mended_after(seconds, mend):
  timer = threading.Timer(seconds, mend)
  timer.start()
  return timer


@pytest.mark.parametrize(
  ("name", "path"),
  [("a.mp4", "a.mp4"), ("c.png", "c.png"), ("take", "take/3.png")],
)
def test_a_record_is_the_same_after_storage_has_failed(
  name, path, videos, quick, caplog
):
  source = open_source(videos, split="all")
  sampler = Clip(5, 1, **_SIZES)
  index = source.ids.index(name)
  expected = row_of(source, index, sampler)
  caplog.clear()
  with failing(videos / path) as mend:
    mended_after(0.5, mend)
    same(row_of(source, index, sampler), expected)
  assert expected["valid"]
  told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
  assert len(told) > 2 and told[-1] == f"{videos / path} can be read again"
  assert all(f"cannot read {videos / path}: Input/output error" in x for x in told[:-1])


def test_a_prepared_record_is_the_same_after_storage_has_failed(prepared, quick):
  source, shard = prepared
  expected = row_of(source, 2)
  source.records.files._start()  # as a worker process, which has opened nothing
  with failing(shard) as mend:
    with pytest.raises(StorageFault, match="Input/output error"):
      source[2]
    mended_after(0.3, mend)
    same(row_of(source, 2), expected)
  assert expected["valid"]


def test_long_videos_go_on_at_the_clip_where_storage_has_failed(videos, quick):
  source = open_source(videos, split="all")
  sampler = Views(0, 2, 1, **_SIZES)
  index = source.ids.index("a.mp4")
  whole = [*rows.Rows(source, sampler).parts(index, None)]
  assert len(whole) == 1 and len(whole[0]) == 6

  class Fails(Views):
    """Cannot read on after two clips, once."""

    left = 1

    def parts(self, record):
      (part,) = super().parts(record)
      for number in range(6):
        if number == 2 and Fails.left:
          Fails.left = 0
          raise StorageFault(record.media, "Stale file handle")
        yield {name: array[number : number + 1] for name, array in part.items()}

  found = rows.Rows(source, Fails(0, 2, 1, **_SIZES)).parts(index, None)
  for row, expected in zip(itertools.chain(*found), whole[0], strict=True):
    same(row, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_storage_that_does_not_come_back_ends_the_batches(workers, videos, monkeypatch):
  monkeypatch.setattr(storage, "PATIENCE", 2.0)
  source = open_source(videos, split="all")
  make = dict(batch_size=2, seed=0, threads=4, workers=workers)
  stream = iter(pipeline.make_pipeline(source, _CLIP, **make))
  with failing(videos / "a.mp4"), pytest.raises(storage.StorageError) as caught:
    for _ in range(4):
      assert next(stream)["valid"].all()
  stream.close()
  message = str(caught.value)
  assert f"{videos / 'a.mp4'} cannot be read: Input/output error, for 2 s" in message


def test_storage_that_does_not_come_back_ends_an_evaluation(videos, monkeypatch):
  monkeypatch.setattr(storage, "PATIENCE", 1.0)
  source = open_source(videos, split="all")
  with failing(videos / "b.mp4"):
    batches = evaluation_batches(source, _CLIP, batch_size=1, seed=0, threads=3)
    with pytest.raises(storage.StorageError, match=r"b\.mp4 cannot be read"):
      for batch in batches:
        assert batch["valid"].all()


def test_what_storage_does_not_give_is_no_damage_of_prepared_motion(videos):
  source = open_source(videos, split="all")
  index = source.ids.index("a.mp4")
  (videos / "b.mp4").write_bytes(b"no video")
  with failing(videos / "a.mp4"):
    streams = frame_streams(source, [index + 1, index], short_side=48, threads=2)
    damaged = next(streams)
    assert not [*damaged] and damaged.damage
    with pytest.raises(StorageFault, match=r"a\.mp4"):
      list(next(streams))


def test_threads_wait_together(videos, monkeypatch, caplog):
  monkeypatch.setattr(storage, "PATIENCE", 2.0)
  source = open_source(videos, split="all")
  sample, index = rows.Rows(source, _CLIP), source.ids.index("a.mp4")
  ended = []

  def read():
    with pytest.raises(storage.StorageError):
      sample.random_map(index, np.random.default_rng(0))
    ended.append(time.monotonic())

  with failing(videos / "a.mp4"):
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert len(ended) == 8 and max(ended) - min(ended) < 1
    began = time.monotonic()
    read()  # nobody waits again
    assert time.monotonic() - began < 1
  assert 2 <= sum("trying again" in r.getMessage() for r in caplog.records) <= 4


def test_a_file_that_is_gone_is_masked_and_a_folder_that_is_gone_is_not(
  videos, monkeypatch
):
  monkeypatch.setattr(storage, "PATIENCE", 0.0)
  source = open_source(videos, split="all")
  index = source.ids.index("a.mp4")
  (videos / "a.mp4").rename(videos / "x.mp4")
  row = row_of(source, index)
  assert not row["valid"] and b"No such file" in row["reason"]
  take = source.ids.index("take")
  (videos / "take").rename(videos / "took")  # a video that is a folder
  row = row_of(source, take)
  assert not row["valid"] and b"No such file" in row["reason"]
  videos.rename(videos.with_name("gone"))
  with pytest.raises(storage.StorageError, match=r"a\.mp4 cannot be read: No such"):
    row_of(source, index)
  videos.mkdir()  # where a mount was
  with pytest.raises(storage.StorageError):
    row_of(source, index)


def test_a_damaged_file_is_no_failing_storage(videos, caplog):
  path = videos / "a.mp4"
  whole = path.read_bytes()
  source = open_source(videos, split="all")
  index = source.ids.index("a.mp4")
  for content in (b"", b"no video", whole[: len(whole) // 2]):
    path.write_bytes(content)
    row = row_of(source, index)
    assert not row["valid"] and row["reason"] and not row["video"].any()
  assert not caplog.records


def test_damaged_prepared_records_are_masked_each_by_itself(prepared):
  source, shard = prepared
  whole, expected = shard.read_bytes(), [row_of(source, i) for i in range(len(source))]
  assert all(row["valid"] for row in expected)
  rng, masked = np.random.default_rng(0), []
  try:
    for place in rng.integers(0, len(whole) - 70_000, 6):
      damaged = bytearray(whole)
      damaged[place : place + 40] = rng.bytes(40)
      shard.write_bytes(damaged)  # open as it is
      found = [row_of(source, i) for i in range(len(source))]
      masked.append(sum(not row["valid"] for row in found))
      for row, other in zip(found, expected, strict=True):
        if row["valid"]:
          same(row, other)
        else:
          assert row["reason"]
    assert max(masked) and np.median(masked) <= 2
  finally:
    shard.write_bytes(whole)
  for index, row in enumerate(expected):
    same(row_of(source, index), row)


def test_a_file_whose_handle_is_stale_is_opened_anew(prepared, monkeypatch):
  source, shard = prepared

  class Stale:
    opened = 0

    def __init__(self, path, **options):
      Stale.opened += 1
      self._reader = self if Stale.opened == 1 else reader(path, **options)

    def read(self, places):
      if self._reader is self:
        raise RuntimeError(f"pread() failed: Stale file handle; reading {shard}")
      return self._reader.read(places)

  reader = record_files.ArrayRecordReader
  monkeypatch.setattr(record_files, "ArrayRecordReader", Stale)
  fresh = pickle.loads(pickle.dumps(source))
  with pytest.raises(StorageFault, match="Stale file handle"):
    fresh[1]
  assert fresh[1] == source[1] and Stale.opened == 2


def test_a_prepared_record_is_read_again_before_it_is_masked(prepared, monkeypatch):
  source, _ = prepared
  expected, read, failed = row_of(source, 2), type(source).__getitem__, []

  def once(self, index):
    if not failed:
      failed.append(index)
      raise DecodeError("damaged in shard: lost for a moment")
    return read(self, index)

  monkeypatch.setattr(type(source), "__getitem__", once)
  same(row_of(source, 2), expected)
  assert failed == [2]


def test_a_file_of_records_that_is_cut_off_is_damaged(prepared):
  source, shard = prepared
  whole, fresh = shard.read_bytes(), pickle.loads(pickle.dumps(source))
  shard.write_bytes(whole[: len(whole) // 2])
  try:
    row = row_of(fresh, 0)
    assert not row["valid"] and f"damaged in {shard}".encode() in row["reason"]
    shard.unlink()  # all of it gone
    with pytest.raises(StorageFault, match="No such file"):
      fresh[0]
  finally:
    shard.write_bytes(whole)


def test_damaged_motion_is_a_decode_error(tmp_path, monkeypatch):
  videos = {name: (flow_sets.number_frames(40), np.ones(40)) for name in "ab"}
  encode = flow_files.encode_frame
  flow_sets.write_set(tmp_path / "whole", videos)
  monkeypatch.setattr(flow_files, "encode_frame", lambda frame: encode(frame)[9:])
  no_pictures = flow_sets.write_set(tmp_path / "no_pictures", videos)
  with pytest.raises(DecodeError, match="its prepared motion is damaged"):
    no_pictures.frames(no_pictures.head("b"), [3])
  path = tmp_path / "whole" / "flow-1.array_record"
  path.write_bytes(path.read_bytes().replace(b"\xff\xd8\xff", b"\xff\xd8\x00"))
  flow = flow_sets.FlowRecords(tmp_path / "whole")
  assert len(flow.frames(flow.head("a"), [3])) == 1
  with pytest.raises(DecodeError, match=f"damaged in {path}"):
    flow.frames(flow.head("b"), [3])
