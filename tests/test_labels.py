"""Labels that a supervised task cannot use end with a message that names the fix."""

import media_files
import pytest
from conftest import ROOT
from test_config import load

from motion_jax.config import UserError
from motion_jax.data import open_source
from motion_jax.data.inputs import configured_sources
from motion_jax.data.labels import (
  check_apart,
  common_classes,
  has_labels,
  same_classes,
  warn_of_gaps,
)


class _Part:
  name = "set"

  def __init__(self, split, classes, labels):
    self.split, self.classes, self.labels = split, classes, labels
    self.ids = [f"{number}.mp4" for number in range(len(labels))]


ABC = ("a", "b", "c")


def test_the_classes_of_both_parts_are_returned():
  assert common_classes(_Part("train", ABC, [0, 1, 2]), _Part("test", ABC, [2])) == ABC


def test_a_held_out_list_may_lack_a_class():
  test = _Part("heldout", ("a", "1", "c"), [0, 2])  # named by what the list has
  assert common_classes(_Part("train", ABC, [0, 1, 2]), test) == ABC


@pytest.mark.parametrize(
  ("train", "test", "message"),
  [
    ((None, [-1]), (ABC, [0]), "sub-folder of its own"),
    ((ABC, [0, 1, 2]), (ABC, [0, -1]), "not every video has a label"),
    ((ABC, [0, 1, 2]), (("a", "c", "b"), [0, 1]), "number them alike"),
    ((ABC, [0, 1]), (ABC, [2]), "video of c, or all of them, is held out"),
    ((ABC[:2], [0, 1]), (ABC, [0, 2]), "video of c, or all of them, is held out"),
  ],
)
def test_labels_that_do_not_fit_are_refused(train, test, message):
  with pytest.raises(UserError, match=message):
    common_classes(_Part("train", *train), _Part("heldout", *test))


def test_where_both_parts_are_searched_a_class_may_be_in_one_alone():
  parts = _Part("train", ABC, [0, 1]), _Part("heldout", ABC, [2])
  assert same_classes(*parts) == ABC


def test_a_file_in_both_lists_is_named(tmp_path):
  for name in ("walk", "jump"):
    for number in range(3):
      path = tmp_path / name / f"{number}.mp4"
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(media_files.video_bytes(4))
  lists = {
    "train": "walk/0.mp4 1\njump/0.mp4 0\nwalk/1.mp4 1",
    "heldout": "walk/1.mp4 1",
  }
  config = load(ROOT / "configs" / "mosi.py").get_config("folder").data
  config.path = str(tmp_path)
  for part, lines in lists.items():
    (tmp_path / f"{part}.txt").write_text(lines)
    config[f"{part}_list"] = str(tmp_path / f"{part}.txt")
  with pytest.raises(UserError, match=r"1 of 1 held-out files.*'walk/1\.mp4'"):
    configured_sources(config)
  (tmp_path / "heldout.txt").write_text("jump/1.mp4 0")
  found = configured_sources(config)
  check_apart(found.train, found.heldout)


def test_a_class_with_its_only_video_held_out_is_named(tmp_path):
  for name, count in (("walk", 6), ("jump", 6), ("fall", 1)):
    for number in range(count):
      path = tmp_path / name / f"{number}.mp4"
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(media_files.video_bytes(4))
  options = dict(heldout_fraction=0.999, heldout_by="file")
  parts = [open_source(tmp_path, split=s, **options) for s in ("train", "heldout")]
  with pytest.raises(UserError, match="needs two videos or more"):
    common_classes(*parts)


@pytest.mark.parametrize(
  ("train", "test", "lines"),
  [
    ([0, 1, 2], [2, 0, 1], []),
    ([0, 1, 2], [2], ["set: 2 of 3 classes without a held-out video: a, b"]),
    (
      [0, 2],
      [2],
      [
        "set: 1 of 3 classes without a training video: b",
        "set: 2 of 3 classes without a held-out video: a, b",
      ],
    ),
  ],
)
def test_only_gaps_that_there_are_are_told(caplog, train, test, lines):
  warn_of_gaps(_Part("train", ABC, train), _Part("heldout", ABC, test))
  assert caplog.messages == lines


def test_a_folder_without_classes_has_no_labels(tmp_path):
  for number in range(3):
    (tmp_path / f"{number}.mp4").write_bytes(media_files.video_bytes(4))
  source = open_source(tmp_path, split="all")
  assert not has_labels(source)


def test_a_folder_of_the_folder_of_classes_names_that_one(tmp_path):
  for name in ("jump", "walk"):
    (tmp_path / "classes" / name).mkdir(parents=True)
    for number in range(3):
      path = tmp_path / "classes" / name / f"{number}.mp4"
      path.write_bytes(media_files.video_bytes(4))
  parts = [open_source(tmp_path, split=split) for split in ("train", "heldout")]
  with pytest.raises(UserError, match=r"did you mean .*/classes[?]"):
    common_classes(*parts)
  (tmp_path / "0.mp4").write_bytes(media_files.video_bytes(4))  # not that alone
  parts = [open_source(tmp_path, split=split) for split in ("train", "heldout")]
  with pytest.raises(UserError, match=r"has a label[.] Put the videos"):
    common_classes(*parts)


def test_lists_of_a_train_and_a_test_folder_number_their_classes(tmp_path):
  parts = []
  for split in ("train", "test"):
    folder = tmp_path / split
    folder.mkdir()
    for number in range(2):
      (folder / f"{number}.mp4").write_bytes(media_files.video_bytes(4))
    lines = [f"{split}/{number}.mp4 {number}" for number in range(2)]
    (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    path = tmp_path / f"{split}.txt"
    parts.append(open_source(tmp_path, split=split, list_file=path))
  assert common_classes(*parts) == ("0", "1")
