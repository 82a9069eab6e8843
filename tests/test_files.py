"""Walks through folders: links, order, odd names, what is passed over."""

import errno
import os
import pickle

import av
import cv2
import media_files
import numpy as np
import pytest

from motion_jax import prepare
from motion_jax.config import UserError
from motion_jax.data import files, folders, media, open_source, storage
from motion_jax.data.builders import plan
from motion_jax.data.sources import StorageFault
from motion_jax.data.video import VideoReader


def touch(root, *names):
  for name in names:
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
      file.write(b"x")


def ids(source):
  return [source.id_of(i) for i in range(len(source))]


@pytest.fixture(params=["folder", "official"])
def found(request):
  """What both readers of folders find: a function of a folder."""
  if request.param == "folder":
    return lambda root: ids(open_source(root, split="all"))

  def official(root):
    places = plan.find_media(str(root))
    return [f"{stem}{os.path.splitext(path)[1]}" for stem, (path, _) in places.items()]

  return official


def test_links_that_lead_back_end_the_walk(tmp_path, found):
  touch(tmp_path, "sub/a.mp4")
  for name in ("one", "two"):  # with one alone, the system's limit of 40 links ends it
    (tmp_path / name).symlink_to(".")
    (tmp_path / "sub" / name).symlink_to(tmp_path)
  (tmp_path / "sub" / "self").symlink_to("self")
  assert found(tmp_path) == ["sub/a.mp4"]


def test_a_folder_counts_once_and_under_its_own_name(tmp_path, found):
  touch(tmp_path / "videos", "jump/a.mp4", "run/b.mp4")
  touch(tmp_path / "elsewhere", "c.mp4")
  (tmp_path / "videos" / "all").symlink_to("jump")
  for name in ("linked", "again"):
    (tmp_path / "videos" / name).symlink_to(tmp_path / "elsewhere")
  assert found(tmp_path / "videos") == ["again/c.mp4", "jump/a.mp4", "run/b.mp4"]


def test_hidden_files_and_folders_are_left_out(tmp_path, found):
  touch(tmp_path, "a.mp4", ".b.mp4", ".cache/c.mp4")
  assert found(tmp_path) == ["a.mp4"]


def test_a_folder_that_cannot_be_listed_is_left_out(
  tmp_path, found, monkeypatch, caplog
):
  touch(tmp_path, "open/a.mp4", "locked/b.mp4")
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith("locked"):
      raise PermissionError(13, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with caplog.at_level("WARNING"):
    assert found(tmp_path) == ["open/a.mp4"]
  assert "locked: Permission denied" in caplog.text


def test_the_order_is_that_of_names_whatever_the_disk_says(tmp_path, monkeypatch):
  touch(tmp_path, *(f"{a}/{b}/{n}.mp4" for a in "ba" for b in "dc" for n in range(3)))
  expected = files.find(tmp_path, {".mp4"})[0]
  assert expected == [f"{a}/{b}/{n}.mp4" for a in "ab" for b in "cd" for n in range(3)]
  scandir = os.scandir

  class Backwards:
    def __init__(self, path):
      with scandir(path) as entries:
        self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

    def __enter__(self):
      return iter(self._entries)

    def __exit__(self, *exc):
      pass

  monkeypatch.setattr(os, "scandir", Backwards)
  assert files.find(tmp_path, {".mp4"})[0] == expected


def test_names_that_are_not_utf8_become_text_that_tells_them_apart():
  names = [b"caf\xe9", rb"caf\xe9", rb"caf\\xe9", "café".encode(), b"caf%E9", b"caf"]
  texts = [files.readable(os.fsdecode(name)) for name in names]
  assert texts[0] == r"caf\xe9" and texts[3:] == ["café", "caf%E9", "caf"]
  assert len({*texts}) == len(names)
  for text in texts:
    text.encode()


def test_a_folder_with_names_that_are_not_utf8_is_read_and_prepared(tmp_path):
  root = os.path.join(tmp_path, os.fsdecode(b"fa\xe7ade"))
  for number, name in enumerate(
    (b"gar\xe7on/a\xe9.mp4", b"gar\xe7on/b.mp4", b"x/c.mp4")
  ):
    path = os.path.join(root, os.fsdecode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
      file.write(media_files.video_bytes(4 + number))
  source = open_source(root, split="all")
  assert ids(source) == [r"gar\xe7on/a\xe9.mp4", r"gar\xe7on/b.mp4", "x/c.mp4"]
  assert source.classes == (r"gar\xe7on", "x")
  source = pickle.loads(pickle.dumps(source))
  with VideoReader(source[0].media) as reader:
    assert reader.num_frames == 4
  make = dict(data_dir=str(tmp_path / "data"), folder_name="mine", workers=1)
  prepare.prepare("video_folder", source=root, heldout_fraction=0.0, **make)
  stored = open_source("video_folder:mine", data_dir=tmp_path / "data", split="all")
  assert ids(stored) == ids(source) and stored.classes == source.classes
  assert [stored[i].num_frames for i in range(3)] == [4, 5, 6]


# Suffix: format, codec, pixels and size of a file that such a name stands for.
YUV = "yuv420p"
VIDEOS = {
  "265": ("hevc", "libx265", YUV, (48, 96)),
  "h265": ("hevc", "libx265", YUV, (48, 96)),
  "hevc": ("hevc", "libx265", YUV, (48, 96)),
  "264": ("h264", "libx264", YUV, (48, 96)),
  "avc": ("h264", "libx264", YUV, (48, 96)),
  "h264": ("h264", "libx264", YUV, (48, 96)),
  "y4m": ("yuv4mpegpipe", "rawvideo", YUV, (48, 96)),
  "m1v": ("mpeg1video", "mpeg1video", YUV, (48, 96)),
  "m2v": ("mpeg2video", "mpeg2video", YUV, (48, 96)),
  "mjpeg": ("mjpeg", "mjpeg", "yuvj420p", (48, 96)),
  "mjpg": ("mjpeg", "mjpeg", "yuvj420p", (48, 96)),
  "ivf": ("ivf", "libvpx", YUV, (48, 96)),
  "obu": ("obu", "libsvtav1", YUV, (64, 96)),
  "apng": ("apng", "apng", "rgb24", (48, 96)),
  "gif": ("gif", "gif", "rgb8", (48, 96)),
  "mxf": ("mxf", "mpeg2video", YUV, (48, 96)),
  "dv": ("dv", "dvvideo", YUV, (576, 720)),
  "nut": ("nut", "mpeg4", YUV, (48, 96)),
  "wtv": ("wtv", "mpeg2video", YUV, (48, 96)),
  "rm": ("rm", "rv20", YUV, (48, 96)),
  "f4v": ("f4v", "libx264", YUV, (48, 96)),
  "ismv": ("ismv", "libx264", YUV, (48, 96)),
  "qt": ("mov", "mpeg4", YUV, (48, 96)),
  "mk3d": ("matroska", "libx264", YUV, (48, 96)),
  "3g2": ("3g2", "mpeg4", YUV, (48, 96)),
  "3gp": ("3gp", "mpeg4", YUV, (48, 96)),
  "divx": ("avi", "mpeg4", YUV, (48, 96)),
  "m2p": ("vob", "mpeg2video", YUV, (48, 96)),
  "mpe": ("mpeg", "mpeg1video", YUV, (48, 96)),
  **dict.fromkeys(("m2t", "m2ts", "mts", "tp"), ("mpegts", "libx264", YUV, (48, 96))),
}


@pytest.mark.parametrize("suffix", VIDEOS)
def test_raw_streams_and_rare_containers_are_videos(tmp_path, suffix):
  file_format, codec, pix_fmt, size = VIDEOS[suffix]
  path = tmp_path / f"a.{suffix}"
  if codec not in av.codecs_available:
    pytest.skip(f"this FFmpeg does not write {codec}")
  options = dict(codec=codec, pix_fmt=pix_fmt, size=size, file_format=file_format)
  media_files.write_video(path, 12, **options)
  (record,) = open_source(tmp_path, split="all")
  assert record.kind == "video"
  with VideoReader(record.media) as reader:
    pictures = [media_files.number_of(image) for image in reader.frames()]
  assert pictures == [*range(12)]
  with VideoReader(record.media) as reader:
    late, early = reader.read([9, 2])
  assert (media_files.number_of(late), media_files.number_of(early)) == (9, 2)


@pytest.mark.parametrize("suffix", sorted(files.IMAGE_SUFFIXES))
def test_images_of_all_suffixes_are_decoded(tmp_path, suffix):
  image = np.full(
    (32, 48) if suffix in (".pgm", ".pbm") else (32, 48, 3), 255, np.uint8
  )
  cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
  (record,) = open_source(tmp_path, split="all")
  assert record.kind == "image"
  assert media.decode_image(record.media).mean() > 250


def test_what_is_passed_over_is_counted_by_suffix_once(tmp_path, caplog):
  touch(tmp_path, "a.mp4", "b.mp4", "1.txt", "x/2.TXT", "3.zip", "README")
  with caplog.at_level("INFO", logger="motion_jax"):
    for split in ("train", "heldout"):
      open_source(tmp_path, split=split)
  assert caplog.text.count("passed over") == 1
  assert "passed over 2 x .txt, 1 x no suffix, 1 x .zip" in caplog.text


def test_a_folder_of_other_files_tells_what_is_there(tmp_path, found):
  touch(tmp_path, *(f"{n}.zip" for n in range(3)), "a.rar")
  with pytest.raises(UserError, match=r"files: 3 x \.zip, 1 x \.rar"):
    found(tmp_path)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_folder_whose_storage_fails_is_not_left_out(tmp_path, monkeypatch, number):
  touch(tmp_path, "run/1.mp4", "jump/1.mp4")
  real = os.scandir

  def failing(path):
    if os.fspath(path).endswith("jump"):
      raise OSError(number, os.strerror(number))
    return real(path)

  monkeypatch.setattr(os, "scandir", failing)
  with pytest.raises(StorageFault, match=r"jump cannot be read"):
    open_source(tmp_path, split="all")


def test_hidden_files_are_no_frames(tmp_path):
  touch(tmp_path, "walk/0001.jpg", "walk/._0001.jpg", "walk/0002.jpg")
  found = folders.frame_paths(tmp_path / "walk")
  assert [path.name for path in found] == ["0001.jpg", "0002.jpg"]


def test_paths_of_lists_have_one_spelling(tmp_path):
  touch(tmp_path, "run/1.mp4", "run/2.mp4")
  listed = tmp_path / "list.txt"
  listed.write_text("\ufeff./run/1.mp4 0\nrun//2.mp4 0\n", encoding="utf-8")
  source = open_source(tmp_path, split="all", list_file=listed)
  assert ids(source) == ["run/1.mp4", "run/2.mp4"]


def test_a_link_to_what_is_gone_is_that_links_affair(tmp_path):
  touch(tmp_path, "data/1.mp4", "elsewhere/other.mp4")
  link = tmp_path / "data" / "2.mp4"
  link.symlink_to(tmp_path / "elsewhere" / "gone.mp4")
  assert not storage._fault(link, root=tmp_path / "data")
  os.remove(tmp_path / "elsewhere" / "other.mp4")  # empty: where a mount was
  assert storage._fault(link, root=tmp_path / "data")
