"""Official lists that are wrong end as one message that names file and line."""

import json
import pathlib

import paper_sets
import pytest

from motion_jax.config import UserError
from motion_jax.data.builders import (
  OFFICIAL,
  hmdb51,
  imagenet_subset,
  kinetics400,
  ucf101,
)


def ucf(tmp_path, monkeypatch):
  options = paper_sets.options_for(tmp_path)
  monkeypatch.setattr(ucf101, "SIZES", ((1, 1), (1, 1), (1, 1)))
  lists = pathlib.Path(options["splits"])
  (lists / "classInd.txt").write_text("1 Jump\n2 Run\n")
  for number in (1, 2, 3):
    (lists / f"trainlist0{number}.txt").write_text("Run/v_Run_g01_c01.avi 2\n")
    (lists / f"testlist0{number}.txt").write_text("Jump/v_Jump_g01_c01.avi\n")
  pathlib.Path(options["source"], "v_Run_g01_c01.avi").write_bytes(b"x")
  return options


def hmdb(tmp_path, monkeypatch):
  options = paper_sets.options_for(tmp_path)
  monkeypatch.setattr(hmdb51, "SIZES", {"train": 1, "test": 1})
  for number in (1, 2, 3):
    path = pathlib.Path(options["splits"], f"run_test_split{number}.txt")
    path.write_text("a b.avi 1\nc.avi 2\n")
  pathlib.Path(options["source"], "a b.avi").write_bytes(b"x")
  return options


KINETICS = "label,youtube_id,time_start,time_end,split"


def kinetics(tmp_path, monkeypatch):
  options = paper_sets.options_for(tmp_path)
  monkeypatch.setattr(kinetics400, "_CLASSES", 1)
  path = pathlib.Path(options["splits"], "val.csv")
  path.write_text(f"{KINETICS}\njumping,aaaaaaaaaaa,3,13,val\n")
  pathlib.Path(options["source"], "aaaaaaaaaaa.mp4").write_bytes(b"x")
  return options


SETS = {"ucf101": ucf, "hmdb51": hmdb, "kinetics400": kinetics, **paper_sets.SETS}
SS = "something-something-v2-"
LISTS = {  # of each data set, lists that it needs
  "ucf101": ("classInd.txt", "trainlist02.txt"),
  "hmdb51": ("run_test_split1.txt", "run_test_split3.txt"),
  "kinetics400": ("val.csv",),
  "something_something_v2": (f"{SS}labels.json", f"{SS}train.json"),
  "ava": (
    "ava_train_v2.2.csv",
    "ava_val_excluded_timestamps_v2.2.csv",
    "ava_action_list_v2.2.pbtxt",
  ),
  "aslan": ("View2.mat",),
}
ALL = [(name, file) for name, files in LISTS.items() for file in files]


@pytest.fixture(autouse=True)
def no_videos(monkeypatch):
  """Plans open no video, so none is encoded."""

  def touch(path, *_, **__):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")

  monkeypatch.setattr(paper_sets, "write_video", touch)


def plan(name, options, allow_missing=True):
  make_plan = OFFICIAL[name].make_plan
  return make_plan(options["source"], options["splits"], allow_missing)


@pytest.mark.parametrize("name", SETS)
def test_right_lists_are_accepted(tmp_path, monkeypatch, name):
  few = name == "hmdb51"  # 51 classes
  assert plan(name, SETS[name](tmp_path, monkeypatch), allow_missing=few).items


@pytest.mark.parametrize(("name", "file"), ALL)
@pytest.mark.parametrize("kind", ["folder", "bytes", "prose"])
def test_what_is_no_list_is_named(tmp_path, monkeypatch, name, file, kind):
  options = SETS[name](tmp_path, monkeypatch)
  path = pathlib.Path(options["splits"], file)
  path.unlink()
  match kind:
    case "folder":
      path.mkdir()
    case "bytes":
      path.write_bytes(b"\xff\xfe\x00PK" * 9)
    case "prose":
      path.write_text("404: Not Found\n<html> no such page, sorry </html>\n")
  with pytest.raises(UserError) as caught:
    plan(name, options)
  assert file in str(caught.value)


@pytest.mark.parametrize(("name", "file"), ALL)
def test_an_empty_list_is_named_unless_it_may_be_empty(
  tmp_path, monkeypatch, name, file
):
  options = SETS[name](tmp_path, monkeypatch)
  pathlib.Path(options["splits"], file).write_text("")
  if "excluded" in file:  # AVA's may be
    assert plan(name, options, allow_missing=False).items
    return
  with pytest.raises(UserError):
    plan(name, options, allow_missing=False)


@pytest.mark.parametrize("name", [name for name in SETS if name != "yupenn"])
@pytest.mark.parametrize("splits", ["", "missing", "lists/file"])
def test_splits_that_are_no_folder_are_explained(tmp_path, monkeypatch, name, splits):
  options = SETS[name](tmp_path, monkeypatch)
  pathlib.Path(options["splits"], "file").write_text("x")
  options["splits"] = splits and str(tmp_path / splits)
  with pytest.raises(UserError, match=r"--splits.* folder"):
    plan(name, options)


@pytest.mark.parametrize(
  ("name", "file", "content", "message"),
  [
    ("ucf101", "classInd.txt", "Jump\n", "line 1: 'Jump' is not `number class`"),
    ("ucf101", "trainlist01.txt", "Fly/v.avi 3\n", "line 1: the class 'Fly' is not in"),
    ("ucf101", "trainlist01.txt", "v_Run.avi\n", "line 1: .* is not `class/video.avi"),
    (
      "ucf101",
      "testlist02.txt",
      "\nRun/v_Run_g01_c01.avi\n",
      r"testlist02.txt, line 2: Run/v_Run_g01_c01 is in train of split 2 already",
    ),
    ("hmdb51", "run_test_split2.txt", "a.avi 1\nb.avi 3\n", "line 2: 'b.avi 3' is not"),
    ("hmdb51", "run_test_split2.txt", "a.avi\n", "line 1: 'a.avi' is not `video.avi 0"),
    (
      "kinetics400",
      "val.csv",
      "label,time_start,time_end,split\na,1,2,val\n",
      "val.csv, line 2: no youtube_id; expected the columns label, youtube_id",
    ),
    (
      "kinetics400",
      "val.csv",
      "youtube_id,time_start,time_end\nx,1,2\n",
      "no column `label` in .*: val.csv has youtube_id, time_start, time_end",
    ),
    ("kinetics400", "val.csv", f"{KINETICS}\na,b,x,2,val\n", "line 2: no seconds: .*x"),
    ("kinetics400", "val.csv", f"{KINETICS}\na,b,9,2,val\n", "line 2: the times"),
    ("kinetics400", "val.csv", f"{KINETICS}\na,b,1,2\n", "line 2: no split; expected"),
    ("kinetics400", "val.csv", f"{KINETICS}\na,b,1,2,minival\n", "line 2: .*'minival'"),
    (
      "something_something_v2",
      f"{SS}labels.json",
      json.dumps({"a": "zero"}),
      "labels.json does not number its labels",
    ),
    (
      "something_something_v2",
      f"{SS}train.json",
      json.dumps([{"id": "1", "template": None}]),
      "train.json: the template 'None' of video 1",
    ),
    (
      "ava",
      "ava_train_v2.2.csv",
      "m,0002,0.1,0.2,0.5,0.9,80,0\n",
      r"ava_train_v2.2.csv: the actions \[80\] are not in the list",
    ),
    ("ava", "ava_train_v2.2.csv", "m,inf,0.1,0.2,0.5,0.9,1,0\n", "line 1: 'm,inf"),
    (
      "ava",
      "ava_train_excluded_timestamps_v2.2.csv",
      "-aMovie,0006\n-aMovie\n",
      "line 2: '-aMovie' is not video,second",
    ),
  ],
)
def test_a_wrong_line_is_named_with_what_it_should_be(
  tmp_path, monkeypatch, name, file, content, message
):
  options = SETS[name](tmp_path, monkeypatch)
  pathlib.Path(options["splits"], file).write_text(content)
  with pytest.raises(UserError, match=message):
    plan(name, options)


@pytest.mark.parametrize("content", ["///\n", "n01/a.JPEG 1 2 3\n"])
def test_a_wrong_list_of_images_is_named(tmp_path, content):
  (tmp_path / "images" / "n01").mkdir(parents=True)
  (tmp_path / "images" / "n01" / "a.JPEG").write_bytes(b"x")
  listing = tmp_path / "list.txt"
  listing.write_text(content)
  source = str(tmp_path / "images")
  with pytest.raises(UserError, match=r"list.txt, line 1: .* is not `wnid/image"):
    imagenet_subset.make_plan(source, str(listing), True, per_class=1)
  with pytest.raises(UserError, match=r"cannot read .*images"):
    imagenet_subset.make_plan(source, source, True, per_class=1)
