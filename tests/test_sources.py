"""Folders, lists of files and data sets as sources."""

import pathlib
import pickle

import cv2
import media_files
import numpy as np
import pytest
import test_config
from ml_collections import ConfigDict

from motion_jax.config import UserError, completed
from motion_jax.data import open_source
from motion_jax.data.inputs import configured_source


def _touch(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def _ids(source):
  return [source.id_of(i) for i in range(len(source))]


def test_a_folder_mixes_videos_images_and_frame_folders(tmp_path):
  _touch(
    tmp_path,
    "a.mp4",
    "B.AVI",
    "notes.txt",
    ".hidden.mp4",
    "photo.jpg",
    "deep/er/c.webm",
    "take1/frame_0009.jpg",
    "take1/frame_0010.jpg",
    "take1/frame_0008.jpg",
    "pets/cat.jpg",
    "pets/dog.jpg",
  )
  source = open_source(tmp_path, split="all")
  kinds = {source[i].id: source[i].kind for i in range(len(source))}
  assert kinds == {
    "a.mp4": "video",
    "B.AVI": "video",
    "photo.jpg": "image",
    "deep/er/c.webm": "video",
    "take1": "frames",
    "pets/cat.jpg": "image",
    "pets/dog.jpg": "image",
  }
  assert source.classes is None and source[0].label == -1
  take = source[_ids(source).index("take1")]
  names = [path.name for path in take.media]
  assert names == ["frame_0008.jpg", "frame_0009.jpg", "frame_0010.jpg"]
  assert len(take.media) == 3


def test_frames_are_ordered_by_number_not_by_name(tmp_path):
  _touch(tmp_path, *(f"v/{n}.png" for n in range(12)))
  take = open_source(tmp_path, split="all")[0]
  assert [path.stem for path in take.media] == [str(n) for n in range(12)]


def test_numbered_photos_are_images_if_frame_folders_are_not_wanted(tmp_path, caplog):
  _touch(tmp_path, *(f"{c}/{n}.jpg" for c in ("cat", "dog") for n in range(3)))
  with caplog.at_level("INFO", logger="motion_jax"):
    assert len(open_source(tmp_path, split="all")) == 2
  assert "2 frame folders (one video each)" in caplog.text
  caplog.clear()
  config = test_config.load(test_config.CONFIGS / "mosi.py").get_config("folder").data
  config.path, config.frame_folders = str(tmp_path), False
  parts = [configured_source(config, split) for split in ("train", "heldout")]
  assert sum(map(len, parts)) == 6 and parts[0].classes == ("cat", "dog")
  assert {source[0].kind for source in parts} == {"image"}
  config.frame_folders = True
  assert configured_source(config, "train")[0].kind == "frames"


def test_images_with_gaps_in_their_numbers_are_images(tmp_path):
  _touch(tmp_path, *(f"n01/n01_{n}.JPEG" for n in (3, 17, 240)), "n02/n02_7.JPEG")
  source = open_source(tmp_path, split="all")
  assert len(source) == 4 and source[0].kind == "image"
  assert source.classes == ("n01", "n02")


def test_class_folders_give_labels(tmp_path):
  _touch(tmp_path, "run/a.mp4", "jump/x/b.mp4", "jump/c.mp4", "readme.md")
  source = open_source(tmp_path, split="all")
  labels = {source[i].id: source[i].label for i in range(len(source))}
  assert source.classes == ("jump", "run")
  assert labels == {"run/a.mp4": 1, "jump/x/b.mp4": 0, "jump/c.mp4": 0}


def test_a_video_beside_the_folders_or_split_folders_are_no_classes(tmp_path):
  _touch(tmp_path / "a", "run/a.mp4", "jump/b.mp4", "c.mp4")
  _touch(tmp_path / "b", "train/a.mp4", "test/b.mp4")
  for name in "ab":
    source = open_source(tmp_path / name, split="all")
    assert source.classes is None and source[0].label == -1


def test_train_and_heldout_part_a_folder_and_do_not_move_when_it_grows(tmp_path):
  _touch(tmp_path, *(f"{n}.mp4" for n in range(300)))
  train, heldout = open_source(tmp_path), open_source(tmp_path, split="heldout")
  assert sorted(_ids(train) + _ids(heldout)) == _ids(open_source(tmp_path, split="all"))
  assert 15 <= len(heldout) <= 50  # 30 expected
  _touch(tmp_path, *(f"more{n}.mp4" for n in range(300)))
  assert set(_ids(heldout)) < set(_ids(open_source(tmp_path, split="heldout")))


@pytest.mark.parametrize("counts", [(2, 25), (25, 25), (3, 4, 100), (1, 9), (2, 2)])
def test_a_share_of_each_class_is_held_out(tmp_path, counts):
  for label, count in enumerate(counts):
    _touch(tmp_path, *(f"class{label}/{n}.mp4" for n in range(count)))
  train, heldout = open_source(tmp_path), open_source(tmp_path, split="heldout")
  assert sorted(_ids(train) + _ids(heldout)) == _ids(open_source(tmp_path, split="all"))
  found = np.bincount(heldout.labels, minlength=len(counts)).tolist()
  expected = [min(count - 1, max(1, int(count / 10 + 0.5))) for count in counts]
  assert found == expected
  assert _ids(heldout) == _ids(open_source(tmp_path, split="heldout"))
  none = open_source(tmp_path, heldout_fraction=0.0)
  assert len(none) == sum(counts)


def test_folders_with_one_file_each_are_no_classes_to_hold_out_from(tmp_path):
  _touch(tmp_path, *(f"{n}/video.mp4" for n in range(40)), "40/a.mp4", "40/b.mp4")
  heldout = open_source(tmp_path, split="heldout")
  by_file = open_source(tmp_path, split="heldout", heldout_by="file")
  assert len(heldout) > 1 and _ids(heldout) == _ids(by_file)


def test_by_file_the_heldout_part_is_what_it_was_before_there_was_a_choice(tmp_path):
  _touch(tmp_path, *(f"{c}/{n}.mp4" for c in "ab" for n in range(25)))
  config = test_config.load(test_config.CONFIGS / "finetune.py").get_config("folder")
  config.data.path, config.data.heldout_by = str(tmp_path), "file"
  old = ["a/3.mp4", "a/5.mp4", "b/11.mp4", "b/19.mp4", "b/7.mp4"]
  assert _ids(configured_source(config.data, "heldout")) == old
  stored = config.data.to_dict()
  del stored["heldout_by"]  # of a run from before
  stored = ConfigDict(completed({"data": stored}))
  assert _ids(configured_source(stored.data, "heldout")) == old
  with pytest.raises(UserError, match="heldout_by"):
    open_source(tmp_path, heldout_by="video")


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.99])
def test_small_folders_have_something_in_both_parts(tmp_path, count, fraction):
  _touch(tmp_path, *(f"{n}.mp4" for n in range(count)))
  parts = [
    open_source(tmp_path, split=split, heldout_fraction=fraction)
    for split in ("train", "heldout")
  ]
  assert min(map(len, parts)) >= 1 and sum(map(len, parts)) == count


def test_a_list_chooses_files_and_labels(tmp_path):
  _touch(tmp_path, "run/a b.mp4", "jump/b.mp4", "jump/c.mp4", "walk/1.jpg")
  listing = tmp_path / "train.txt"
  listing.write_text("run/a b.mp4 2\njump/c.mp4 0\n\nwalk 1\n")
  source = open_source(tmp_path, list_file=listing)
  assert [(source[i].id, source[i].label) for i in range(2)] == [
    ("run/a b.mp4", 2),
    ("jump/c.mp4", 0),
  ]
  assert source[2].kind == "frames" and source.classes == ("jump", "walk", "run")
  listing.write_text("run/a b.mp4\njump/c.mp4\n")
  assert open_source(tmp_path, list_file=listing).classes is None


def test_folder_sources_are_small_and_pickle(tmp_path):
  media_files.write_video(tmp_path / "a.mp4", 4)
  source = pickle.loads(pickle.dumps(open_source(tmp_path, split="all")))
  assert source[0].media == pathlib.Path(tmp_path, "a.mp4")


@pytest.mark.parametrize(
  ("make", "options", "message"),
  [
    ((), {}, "no videos or images in"),
    (("a.txt",), {}, "no videos or images in"),
    (("a.mp4",), {"split": "heldout"}, "is empty"),
    (("a.mp4",), {"split": "validate"}, "use train, heldout or all"),
    (("a.mp4",), {"heldout_fraction": 1.5}, "must be in"),
    (("a.mp4",), {"list_file": "missing.txt"}, "cannot read the list"),
  ],
)
def test_mistakes_with_folders_are_explained(tmp_path, make, options, message):
  _touch(tmp_path, *make)
  with pytest.raises(UserError, match=message):
    open_source(tmp_path, **options)


def test_a_list_of_another_folder_is_refused(tmp_path):
  _touch(tmp_path, "a.mp4")
  (tmp_path / "list.txt").write_text("x/a.mp4 0\n")
  with pytest.raises(UserError, match="none of the first 1 files"):
    open_source(tmp_path, list_file=tmp_path / "list.txt")


def test_a_missing_folder_is_named():
  with pytest.raises(UserError, match=r"called 'no/such/folder'.*synthetic_actions"):
    open_source("no/such/folder")


@pytest.mark.parametrize(
  ("name", "command"),
  [
    ("ucf101", "motion_jax.prepare ucf101 --source="),
    ("hmdb51:split2", "motion_jax.prepare hmdb51 --source="),
    ("kinetics400", "motion_jax.prepare kinetics400 --source="),
    ("hmdb51:split2,frames", "motion_jax.prepare hmdb51 .* --layout=frames "),
    ("imagenet_subset", "imagenet_subset --source=.* --per_class=10 "),
    ("imagenet_subset:30", "imagenet_subset --source=.* --per_class=30 "),
    ("video_folder", "video_folder --source=FOLDER --name=NAME "),
    ("video_folder:mine", "video_folder --source=FOLDER --name=mine "),
  ],
)
def test_a_data_set_that_is_not_prepared_tells_the_command(tmp_path, name, command):
  with pytest.raises(UserError, match=command) as caught:
    open_source(name, data_dir=tmp_path)
  assert f"--data_dir={tmp_path}" in str(caught.value)


def test_the_embedded_data_set_is_made_once_and_read(tmp_path):
  source = open_source("synthetic_actions:tiny", data_dir=tmp_path)
  assert len(source) == 20 and len(source.classes) == 10
  labels = [source[i].label for i in range(20)]
  assert np.bincount(labels).tolist() == [2] * 10
  record = source[7]
  assert (record.kind, record.num_frames, record.fps) == ("video", 40, 25.0)
  assert (record.height, record.width) == (128, 128)
  assert record.id == source.id_of(7)
  heldout = open_source("synthetic_actions:tiny", data_dir=tmp_path, split="heldout")
  assert len(heldout) == 10 and heldout.id_of(0).startswith("test/")
  copy = pickle.loads(pickle.dumps(source))
  assert copy[7].media == record.media
  made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.array_record*")}
  open_source("synthetic_actions:tiny", data_dir=tmp_path)
  assert made == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.array_record*")}
  with pytest.raises(UserError, match="has no split 'val'"):
    open_source("synthetic_actions:tiny", data_dir=tmp_path, split="val")
  with pytest.raises(UserError, match="unknown variant"):
    open_source("synthetic_actions:huge", data_dir=tmp_path)


def test_where_nothing_can_be_written_is_explained(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write synthetic_actions"):
    open_source("synthetic_actions:tiny", data_dir=tmp_path / "file")


def test_a_scan_opens_no_file(tmp_path):
  unreadable = tmp_path / "a.jpg"
  cv2.imwrite(str(unreadable), np.zeros((4, 4, 3), np.uint8))
  unreadable.chmod(0)
  assert len(open_source(tmp_path, split="all")) == 1
