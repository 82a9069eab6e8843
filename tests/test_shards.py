"""Shards of a data set: written at any size, resumed, redone, looked at."""

import sys
import zipfile

import cv2
import media_files
import pytest
from failing_storage import failing
from tensorflow_datasets.core import shuffle

from motion_jax import prepare
from motion_jax.config import UserError
from motion_jax.data import open_source
from motion_jax.data.builders import encoding, plan, shards
from motion_jax.data.sources import DecodeError


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Six videos of 4 to 9 frames; a shard for each; options that prepare them."""
  monkeypatch.setattr(plan, "_LEAST_RECORDS", 1)
  (tmp_path / "videos").mkdir()
  for number in range(6):
    media_files.write_video(tmp_path / "videos" / f"{number}.mp4", 4 + number)
  return {
    "source": str(tmp_path / "videos"),
    "data_dir": str(tmp_path / "data"),
    "folder_name": "mine",
    "heldout_fraction": 0.0,
    "workers": 1,
  }


@pytest.fixture
def encoded(monkeypatch):
  """Identifiers of the records that are encoded."""
  names, encode = [], encoding.encode

  def count(item, *args):
    names.append(item.id)
    return encode(item, *args)

  monkeypatch.setattr(encoding, "encode", count)
  return names


def _lengths(options):
  source = open_source("video_folder:mine", data_dir=options["data_dir"])
  return {source[i].id: source[i].num_frames for i in range(len(source))}


def test_a_split_that_tfds_would_sort_with_tensorflow_is_written(folder, monkeypatch):
  monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)  # as above 1,000 MiB
  prepare.prepare("video_folder", **folder)
  assert _lengths(folder) == {f"{n}.mp4": 4 + n for n in range(6)}
  assert "tensorflow" not in sys.modules


def test_a_video_that_has_changed_is_encoded_again_and_no_other(
  folder, encoded, monkeypatch, tmp_path
):
  with monkeypatch.context() as patch:
    patch.setattr(
      shards, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
      prepare.prepare("video_folder", **folder)
  assert len(encoded) == 6
  media_files.write_video(tmp_path / "videos" / "3.mp4", 12)
  prepare.prepare("video_folder", **folder)
  assert encoded[6:] == ["3.mp4"]
  assert _lengths(folder)["3.mp4"] == 12


def test_a_shard_that_was_cut_short_is_written_again(
  folder, encoded, monkeypatch, tmp_path
):
  def cut(job, *_):
    path = sorted((job.folder / "data").iterdir())[2]
    path.write_bytes(path.read_bytes()[:-100])
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(shards, "publish", cut)
    with pytest.raises(KeyboardInterrupt):
      prepare.prepare("video_folder", **folder)
  prepare.prepare("video_folder", **folder)
  assert len(encoded) == 7 and len(_lengths(folder)) == 6


def test_a_shard_of_unreadable_videos_alone_is_empty(folder, tmp_path):
  (tmp_path / "videos" / "2.mp4").write_bytes(b"damaged")
  prepare.prepare("video_folder", **folder)
  assert sorted(_lengths(folder)) == [f"{n}.mp4" for n in (0, 1, 3, 4, 5)]


def test_storage_that_fails_loses_no_record(folder, encoded, monkeypatch):
  def fail(path, *args):
    if str(path).endswith("3.mp4"):
      raise PermissionError(13, "Permission denied", str(path))
    return open(path, *args)

  with monkeypatch.context() as patch:
    patch.setattr(encoding, "open", fail, raising=False)
    with pytest.raises(PermissionError, match=r"3\.mp4"):
      prepare.prepare("video_folder", **folder)
  prepare.prepare("video_folder", **folder)
  assert _lengths(folder) == {f"{n}.mp4": 4 + n for n in range(6)}


def test_an_error_that_is_not_of_the_disk_keeps_its_name(folder, monkeypatch):
  def fail(*_):
    raise RuntimeError("a fault of ours")

  monkeypatch.setattr(encoding, "encode", fail)
  with pytest.raises(RuntimeError, match="a fault of ours"):
    prepare.prepare("video_folder", **folder)


def test_a_frame_that_has_changed_is_noticed(folder, encoded, monkeypatch, tmp_path):
  take = tmp_path / "videos" / "take"
  take.mkdir()
  for number in range(3):
    cv2.imwrite(str(take / f"{number}.png"), media_files.picture(number))
  with monkeypatch.context() as patch:
    patch.setattr(
      shards, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
      prepare.prepare("video_folder", **folder)
  cv2.imwrite(str(take / "1.png"), media_files.picture(7))
  del encoded[:]
  prepare.prepare("video_folder", **folder)
  assert encoded == ["take"]


def test_held_out_are_some_of_the_media_that_are_stored(folder, tmp_path):
  for number in range(12):  # thumbnails
    picture = media_files.picture(number)
    cv2.imwrite(str(tmp_path / "videos" / f"p{7 * number}.jpg"), picture)
  prepare.prepare("video_folder", **folder | {"heldout_fraction": 0.2})
  heldout = open_source(
    "video_folder:mine", split="heldout", data_dir=folder["data_dir"]
  )
  assert 1 <= len(heldout) <= 3


def test_a_shard_with_other_records_than_it_should_have_is_found(
  folder, monkeypatch, tmp_path
):
  publish = shards.publish

  def swap(job, *rest):
    one, other = sorted((job.folder / "data").iterdir())[:2]
    one.rename(tmp_path / "x")
    other.rename(one)
    (tmp_path / "x").rename(other)
    publish(job, *rest)

  monkeypatch.setattr(shards, "publish", swap)
  with pytest.raises(UserError, match=r"0 of train is 1.mp4, not 0.mp4; delete"):
    prepare.prepare("video_folder", **folder)
  with pytest.raises(UserError, match="not prepared"):
    _lengths(folder)


def test_the_directory_of_an_archive_is_read_once(folder, tmp_path, monkeypatch):
  archive = tmp_path / "videos.zip"
  with zipfile.ZipFile(archive, "w") as file:
    for number in range(6):
      file.write(tmp_path / "videos" / f"{number}.mp4", f"{number}.mp4")
  opened = []

  class Counted(zipfile.ZipFile):
    def __init__(self, *args):
      opened.append(args)
      super().__init__(*args)

  monkeypatch.setattr(zipfile, "ZipFile", Counted)
  items = [plan.Item(f"{n}", str(archive), 0, "train", f"{n}.mp4") for n in range(6)]
  frames = [encoding.encode(item, "video", 256)[0]["num_frames"] for item in items]
  assert frames == [4, 5, 6, 7, 8, 9] and len(opened) == 1


@pytest.mark.slow
def test_a_failure_in_one_process_ends_the_others_and_keeps_what_is_done(
  folder, encoded, tmp_path
):
  # A folder where the file of a shard belongs: it cannot be written.
  home = tmp_path / "data" / "video_folder"
  data = home / ".building_mine_video_256" / "data"
  (data / "video_folder-train.array_record-00004-of-00006").mkdir(parents=True)
  with pytest.raises(OSError, match="00004-of-00006"):
    prepare.prepare("video_folder", **folder | {"workers": 2})
  (data / "video_folder-train.array_record-00004-of-00006").rmdir()
  prepare.prepare("video_folder", **folder)
  assert 1 <= len(encoded) < 6 and len(_lengths(folder)) == 6


def test_large_splits_have_a_bounded_number_of_shards():
  items = [plan.Item(f"{n}", "", 0, "train") for n in range(240_000)]
  parts = plan.split_up(items)
  assert 200 < len(parts) <= 256
  assert [item for part in parts for item in part.items] == items


@pytest.mark.parametrize("lost", [False, True])
def test_what_storage_does_not_give_is_no_damage(tmp_path, monkeypatch, lost):
  path = tmp_path / "a.mp4"
  media_files.write_video(path, 8)
  item = plan.Item("a", str(path), 0, "train")

  def broken(*args):  # FFmpeg calls both a file that is cut off
    if lost:
      raise DecodeError("no video frames")
    return {}, "kept the first 4 frames"

  monkeypatch.setattr(encoding, "_encode", broken)
  if lost:
    with pytest.raises(DecodeError):
      encoding.encode(item, "video", 32)
  else:
    assert encoding.encode(item, "video", 32)[1] == "kept the first 4 frames"
  with failing(path), pytest.raises(OSError, match="Input/output error"):
    encoding.encode(item, "video", 32)
