"""Kinetics, Something-Something V2, AVA, ASLAN and YUPENN, from their own formats."""

import json
import pathlib

import media_files
import numpy as np
import paper_sets
import pytest
import scipy.io

from motion_jax import prepare
from motion_jax.config import UserError
from motion_jax.data import ava_files, media, open_source
from motion_jax.data.builders import (
  encoding,
  kinetics400,
  something_something_v2,
)

_LISTS = pathlib.Path(__file__).parents[2] / "shared" / "data" / "splits"


def _numbers(record):
  frames = media.read_record(record, lambda found, fps: range(found))
  return [media_files.number_of(frame) for frame in frames]


def test_something_something_v2_is_read_back(tmp_path, monkeypatch):
  options = paper_sets.something(tmp_path, monkeypatch)
  prepare.prepare("something_something_v2", **options)
  name, data_dir = "something_something_v2", options["data_dir"]
  train = open_source(name, data_dir=data_dir)
  heldout = open_source(name, split="heldout", data_dir=data_dir)
  assert train.classes == ("Bending something so that it deforms", "Closing something")
  assert list(zip(train.ids, train.labels, strict=True)) == [
    ("12", 1),
    ("7", 0),
    ("300", 1),
  ]
  assert [heldout.id_of(i) for i in range(2)] == ["5", "41"]
  assert _numbers(heldout[0]) == list(range(11))


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    ("labels", None, "neither labels.json nor something-something-v2-labels.json"),
    ("labels", "{", "cannot read .*labels.json"),
    ("labels", "[]", "is not what its name says"),
    ("labels", '{"a": "0", "b": "7"}', "does not number its labels from 0 on"),
    ("labels", '{"a": "0"}', "found 1 entries, the official number is 2"),
    ("train", "[]", "train.json: found 0 entries, the official number is 3"),
    ("validation", '[{"id": "1"}, {}]', "without id or template"),
    (
      "validation",
      '[{"id": "1", "template": "[x]"}, {}]',
      r"the template '\[x\]' of video 1 is not in labels.json",
    ),
  ],
)
def test_wrong_lists_of_something_something_are_explained(
  tmp_path, monkeypatch, file, content, message
):
  options = paper_sets.something(tmp_path, monkeypatch)
  path = pathlib.Path(options["splits"], f"something-something-v2-{file}.json")
  path.unlink() if content is None else path.write_text(content)
  with pytest.raises(UserError, match=message):
    prepare.prepare("something_something_v2", **options)
  assert not pathlib.Path(options["data_dir"]).exists()


def test_the_official_lists_of_something_something_fit_together(tmp_path, monkeypatch):
  lists = _LISTS / "ssv2"
  if not lists.exists():
    pytest.skip("needs shared/data/splits")
  for name in ("labels", "validation"):
    file = f"something-something-v2-{name}.json"
    (tmp_path / file).write_bytes((lists / file).read_bytes())
  (tmp_path / "train.json").write_text("[]")
  monkeypatch.setitem(something_something_v2.SIZES, "train", 0)
  (tmp_path / "videos").mkdir()
  (tmp_path / "videos" / "74225.webm").write_bytes(b"x")
  made = something_something_v2.make_plan(
    str(tmp_path / "videos"), str(tmp_path), False
  )
  assert len(made.missing) == 24776 and len(made.classes) == 174
  (item,) = made.items
  assert made.classes[item.label] == "Spinning something that quickly stops spinning"


def test_aslan_keeps_its_pairs_beside_the_videos(tmp_path, monkeypatch):
  options = paper_sets.pairs(tmp_path, monkeypatch)
  prepare.prepare("aslan", **options)
  source = open_source("aslan", split="all", data_dir=options["data_dir"])
  assert list(source.ids) == ["0001", "0002", "0003", "0004", "0005"]
  assert list(source.labels) == [8, 8, 3, 3, 1]
  assert source.notes["pairs"] == [
    ["0001", "0002", 1, 0],
    ["0001", "0003", 0, 0],
    ["0003", "0004", 1, 1],
    ["0005", "0003", 0, 1],
  ]


@pytest.mark.parametrize(
  ("table", "message"),
  [
    (None, "cannot read"),
    ({"pairs": np.zeros((2, 5, 2))}, "has no table action_splits_pairs"),
    ({"action_splits_pairs": np.zeros((2, 4, 2))}, r"shape \(2, 4, 2\)"),
    ({"action_splits_pairs": np.ones((2, 5, 3))}, "folds of View2.mat: found 3"),
    ({"action_splits_pairs": np.ones((4, 5, 2))}, "pairs per fold of View2.mat: found"),
    ({"action_splits_pairs": np.ones((2, 5, 2))}, "same pairs of fold 1: found 2"),
  ],
)
def test_wrong_pairs_of_aslan_are_explained(tmp_path, monkeypatch, table, message):
  options = paper_sets.pairs(tmp_path, monkeypatch)
  path = pathlib.Path(options["splits"], "View2.mat")
  path.write_bytes(b"damaged") if table is None else scipy.io.savemat(path, table)
  with pytest.raises(UserError, match=message):
    prepare.prepare("aslan", **options)


def test_yupenn_is_labelled_by_its_folders(tmp_path, monkeypatch):
  options = paper_sets.scenes(tmp_path, monkeypatch)
  prepare.prepare("yupenn", **options)
  source = open_source("yupenn", split="all", data_dir=options["data_dir"])
  assert source.classes == ("Beach", "Elevator")
  assert list(source.labels) == [0, 0, 1, 1]
  assert source.ids[3] == "Elevator/Elevator_1"
  with pytest.raises(UserError, match="leave --splits out"):
    prepare.prepare("yupenn", **options | {"splits": "lists"})
  paper_sets.write_video(pathlib.Path(options["source"], "YUPENN/Beach/more.mov"))
  with pytest.raises(UserError, match="videos of Beach: found 3"):
    prepare.prepare("yupenn", **options)
  paper_sets.write_video(pathlib.Path(options["source"], "loose.mov"))
  with pytest.raises(UserError, match="loose is in no class folder"):
    prepare.prepare("yupenn", **options)


def test_ava_has_three_seconds_around_each_key_frame(tmp_path, monkeypatch):
  options = paper_sets.detections(tmp_path, monkeypatch)
  prepare.prepare("ava", **options)
  train = open_source("ava", data_dir=options["data_dir"])
  val = open_source("ava", split="heldout", data_dir=options["data_dir"])
  assert list(train.ids) == ["-aMovie/0002", "-aMovie/0005"]  # 0006 is excluded
  assert list(val.ids) == ["b_Movie/0003", "b_Movie/0004"]  # 0004 by the detector
  # The frame of second s at 5 fps is 5 s; 1.5 seconds are 7.5 frames.
  for record, second in ((train[0], 2), (train[1], 5), (val[1], 4)):
    numbers = _numbers(record)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert 14 <= len(numbers) <= 16
    assert abs(numbers[len(numbers) // 2] - 5 * second) <= 1
  notes = val.notes
  assert notes["actions"] == {"1": "action 1", "2": "action 2", "3": "action 3"}
  assert notes["evaluated"] == [1, 2] and notes["excluded"] == ["-aMovie/0006"]
  assert notes["boxes"]["train"][1] == ["-aMovie/0002", 0.1, 0.2, 0.5, 0.9, 3, 1.0]
  assert [*notes["boxes"]["val"]] == [["b_Movie/0003", 0.1, 0.1, 0.5, 0.5, 2, 1.0]]
  assert notes["persons"]["val"][1][1:] == [0.1, 0.1, 0.4, 0.5, -1, 0.85]


def test_a_movie_that_ends_before_its_key_frame_is_named(tmp_path, monkeypatch):
  options = paper_sets.detections(tmp_path, monkeypatch)
  path = pathlib.Path(options["splits"], "ava_val_v2.2.csv")
  path.write_text("b_Movie,0900,0.1,0.1,0.5,0.5,2,7\n")
  with pytest.raises(UserError, match=r"1 of 5 files cannot be read.*b_Movie/0900"):
    prepare.prepare("ava", **options)


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    ("ava_val_v2.2.csv", None, r"expected one file ava_val_v\*.csv .* found none"),
    ("ava_val_v2.1.csv", "", r"found ava_val_v2.1.csv, ava_val_v2.2.csv"),
    ("ava_train_v2.2.csv", "", "train movies in the csv file: found 0"),
    ("ava_train_v2.2.csv", "a,2,0.1,0.2\n", "line 1: 'a,2,0.1,0.2' is not"),
    ("ava_train_v2.2.csv", "a,2,0.1,0.2,50,60,1,0\n", r"in \[0, 1\]"),
    ("ava_val_excluded_timestamps_v2.2.csv", "x\n", "line 1: .x. is not video,second"),
    ("ava_action_list_v2.2.pbtxt", "", "is no action list"),
    ("ava_action_list_v2.2.pbtxt", None, "expected one ava_action_list"),
  ],
)
def test_wrong_lists_of_ava_are_explained(
  tmp_path, monkeypatch, file, content, message
):
  options = paper_sets.detections(tmp_path, monkeypatch)
  path = pathlib.Path(options["splits"], file)
  path.unlink() if content is None else path.write_text(content)
  with pytest.raises(UserError, match=message):
    prepare.prepare("ava", **options)


def test_the_official_files_of_ava_are_read():
  lists = _LISTS / "ava"
  if not lists.exists():
    pytest.skip("needs shared/data/splits")
  found = ava_files.read_actions(
    lists / "ava_action_list_v2.1_for_activitynet_2018.pbtxt"
  )
  assert len(found) == 60 and found[80] == "watch (a person)"
  rows = ava_files.read_boxes(lists / "ava_sample.csv")
  assert rows[0] == (("0f39OWEqJ24", 902), (0.031, 0.162, 0.670, 0.995), 12, 1.0)
  excluded = ava_files.read_excluded(lists / "ava_excluded_timestamps_sample.csv")
  assert excluded == {("0f39OWEqJ24", 903), ("_-Z6wFjXtGQ", 902)}


@pytest.mark.parametrize("name", paper_sets.SETS)
def test_missing_and_damaged_videos_stop_unless_allowed(name, tmp_path, monkeypatch):
  options = paper_sets.SETS[name](tmp_path, monkeypatch)
  files = sorted(p for p in pathlib.Path(options["source"]).rglob("*") if p.is_file())
  files[0].write_bytes(b"damaged")
  with pytest.raises(UserError, match=r"cannot be read.*--allow_missing"):
    prepare.prepare(name, **options)
  files[0].unlink()
  with pytest.raises(UserError, match=r"not in --source|found 1 entries"):
    prepare.prepare(name, **options)
  with pytest.raises(UserError, match="not prepared"):
    open_source(name, data_dir=options["data_dir"])
  made = prepare.prepare(name, allow_missing=True, **options)
  if name != "yupenn":
    assert json.loads((made / "metadata.json").read_text())["missing"]


@pytest.mark.parametrize("name", paper_sets.SETS)
def test_a_stopped_preparation_is_finished_by_the_same_command(
  name, tmp_path, monkeypatch
):
  options = paper_sets.SETS[name](tmp_path, monkeypatch)
  encoded = []
  encode = encoding.encode

  def encode_two(item, *args):
    if len(encoded) == 2:
      raise KeyboardInterrupt
    encoded.append(item.id)
    return encode(item, *args)

  monkeypatch.setattr(encoding, "encode", encode_two)
  with pytest.raises(KeyboardInterrupt):
    prepare.prepare(name, **options)
  with pytest.raises(UserError, match="not prepared"):
    open_source(name, data_dir=options["data_dir"])
  monkeypatch.setattr(encoding, "encode", encode)
  made = prepare.prepare(name, **options)
  source = open_source(name, split="all", data_dir=options["data_dir"])
  assert set(encoded) < set(source.ids)
  monkeypatch.setattr(encoding, "encode", None)  # nothing is encoded again
  assert prepare.prepare(name, **options) == made


def test_kinetics_goes_on_without_missing_clips_and_names_them(
  tmp_path, monkeypatch, caplog
):
  options = paper_sets.options_for(tmp_path)
  monkeypatch.setattr(kinetics400, "_CLASSES", 2)
  pathlib.Path(options["splits"], "val.csv").write_text(
    "label,youtube_id,time_start,time_end,split,is_cc\n"
    "jumping,aaaaaaaaaaa,3,5,val,0\nrunning,bbbbbbbbbbb,0,2,val,0\n"
    "running,ccccccccccc,7,9,val,0\n"
  )
  paper_sets.write_video(
    pathlib.Path(options["source"], "aaaaaaaaaaa.mp4"), 40, ticks=5
  )  # 8 seconds
  paper_sets.write_video(
    pathlib.Path(options["source"], "bbbbbbbbbbb_000000_000002.mp4"), 11, ticks=5
  )
  with caplog.at_level("WARNING"):
    made = prepare.prepare("kinetics400", **options)
  missing = "running/ccccccccccc_000007_000009"
  assert f"1 of 3 listed files are missing and left out: {missing}" in caplog.text
  assert json.loads((made / "metadata.json").read_text())["missing"] == [missing]
  val = open_source("kinetics400", split="heldout", data_dir=options["data_dir"])
  assert _numbers(val[0]) == list(range(15, 25))  # seconds 3 to 5 of a longer file
  assert _numbers(val[1]) == list(range(11))
