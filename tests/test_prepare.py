"""Data sets built from files, read back, stopped and repeated."""

import json
import pathlib
import subprocess
import sys
import zipfile

import av
import cv2
import media_files
import numpy as np
import pytest

from motion_jax import prepare
from motion_jax.config import UserError
from motion_jax.data import media, open_source
from motion_jax.data.builders import encoding, ucf101


@pytest.fixture
def ucf(tmp_path, monkeypatch):
  """A UCF101 of four videos of 7, 8, 9, 10 frames, and its lists."""
  monkeypatch.setattr(ucf101, "SIZES", ((3, 1),) * 3)
  videos, lists = tmp_path / "videos", tmp_path / "lists"
  lists.mkdir()
  (lists / "classInd.txt").write_text("1 Jump\n2 Run\n")
  names = [f"{c}/v_{c}_g0{g}_c01" for c in ("Jump", "Run") for g in (1, 2)]
  for number, name in enumerate(names):
    (videos / name).parent.mkdir(parents=True, exist_ok=True)
    media_files.write_video(videos / f"{name}.avi", 7 + number, codec="mpeg4")
  for number in range(3):
    train = [f"{name}.avi 1\n" for name in names if name != names[number]]
    (lists / f"trainlist0{number + 1}.txt").write_text("".join(train))
    (lists / f"testlist0{number + 1}.txt").write_text(f"{names[number]}.avi\n")
  options = {"splits": str(lists), "data_dir": str(tmp_path / "data"), "workers": 1}
  return names, {"source": str(videos), **options}


def _frames(record):
  count = record.num_frames
  return media.read_record(record, lambda found, fps: range(min(found, count)))


@pytest.mark.parametrize("layout", ["video", "frames"])
def test_official_splits_are_read_back(ucf, layout):
  names, options = ucf
  prepare.prepare("ucf101", layout=layout, **options)
  data_dir = options["data_dir"]
  for number in range(3):
    variant = f"ucf101:split{number + 1},{layout}"
    test = open_source(variant, split="heldout", data_dir=data_dir)
    assert [test.id_of(i) for i in range(len(test))] == [names[number]]
    train = open_source(variant, data_dir=data_dir)
    found = {train.id_of(i) for i in range(len(train))}
    assert found == set(names) - {names[number]}
  for index in range(len(train)):
    record = train[index]
    assert record.kind == layout and train.classes[record.label] in record.id
    assert (record.height, record.width, record.fps) == (48, 96, 25.0)
    numbers = [media_files.number_of(frame) for frame in _frames(record)]
    assert (
      numbers
      == list(range(record.num_frames))
      == list(range(7 + names.index(record.id)))
    )
  assert "tensorflow" not in sys.modules


def test_stored_videos_have_short_distances_between_key_frames(tmp_path):
  media_files.write_video(tmp_path / "long.mp4", 60, gop=60)
  media_files.write_video(tmp_path / "other.mp4", 60)
  prepare.prepare(
    "video_folder",
    source=str(tmp_path),
    data_dir=str(tmp_path / "data"),
    folder_name="mine",
    workers=1,
  )
  source = open_source("video_folder:mine", data_dir=tmp_path / "data")
  path = tmp_path / "stored.bin"
  path.write_bytes(source[0].media)
  with av.open(str(path)) as container:
    keys = [f.pts for f in container.decode(video=0) if f.key_frame]
  with av.open(str(path)) as container:
    step = 1 / (25 * container.streams.video[0].time_base)
  assert max(np.diff(keys)) <= 12 * step and len(keys) >= 5


def test_large_videos_are_reduced_and_small_ones_kept(tmp_path):
  media_files.write_video(tmp_path / "large.mp4", 4, size=(96, 192))
  media_files.write_video(
    tmp_path / "odd.avi", 4, codec="mjpeg", pix_fmt="yuvj420p", size=(31, 45)
  )
  options = {"data_dir": str(tmp_path / "data"), "workers": 1, "short_side": 48}
  prepare.prepare("video_folder", source=str(tmp_path), folder_name="a", **options)
  sizes = set()
  for split in ("train", "test"):
    source = open_source("video_folder:a", split=split, data_dir=tmp_path / "data")
    sizes |= {(source[i].height, source[i].width) for i in range(len(source))}
    assert _frames(source[0])[0].shape[:2] == (source[0].height, source[0].width)
  assert sizes == {(48, 96), (32, 44)}


def test_image_and_frame_folders_become_data_sets(tmp_path):
  for number in range(5):
    cv2.imwrite(str(tmp_path / f"p{number * 7}.png"), media_files.picture(number))
    (tmp_path / "take").mkdir(exist_ok=True)
    cv2.imwrite(str(tmp_path / f"take/{number}.png"), media_files.picture(number))
  options = {"data_dir": str(tmp_path / "data"), "workers": 1, "source": str(tmp_path)}
  prepare.prepare("image_folder", folder_name="a", **options)
  images = [
    open_source("image_folder:a", split=split, data_dir=tmp_path / "data")
    for split in ("train", "test")
  ]
  assert sum(map(len, images)) == 10  # those that are numbered, too
  record = images[0][0]
  assert record.media == (tmp_path / record.id).read_bytes()
  prepare.prepare("video_folder", folder_name="b", **options)
  take = open_source("video_folder:b", data_dir=tmp_path / "data")[0]
  assert [media_files.number_of(frame) for frame in _frames(take)] == list(range(5))


def test_a_name_that_another_folder_has_taken_is_refused(tmp_path):
  options = {"data_dir": str(tmp_path / "data"), "workers": 1, "folder_name": "a"}
  for name in ("one", "two"):
    (tmp_path / name).mkdir()
    media_files.write_video(tmp_path / name / "v.mp4", 4)
  one, two = str(tmp_path / "one"), str(tmp_path / "two")
  made = prepare.prepare("video_folder", source=one, **options)
  again = prepare.prepare("video_folder", source=f"{two}/../one", **options)
  assert again == made
  with pytest.raises(UserError, match=f"source={one}, not .*{two}; .*delete {made}"):
    prepare.prepare("video_folder", source=two, **options)
  with pytest.raises(UserError, match=r"layout=video, not with layout=frames"):
    prepare.prepare("video_folder", source=one, layout="frames", **options)
  prepare.prepare("video_folder", source=two, **options | {"folder_name": "b"})


def test_an_archive_gives_the_same_data_set_as_its_folder(ucf, tmp_path):
  names, options = ucf
  with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
    for name in names:
      archive.write(pathlib.Path(options["source"], f"{name}.avi"), f"UCF/{name}.avi")
  prepare.prepare("ucf101", **options)
  zipped = options | {
    "source": str(tmp_path / "all.zip"),
    "data_dir": str(tmp_path / "z"),
  }
  prepare.prepare("ucf101", **zipped)
  one, two = (open_source("ucf101", data_dir=o["data_dir"]) for o in (options, zipped))
  assert [one[i] for i in range(len(one))] == [two[i] for i in range(len(two))]


def test_unreadable_videos_stop_an_official_data_set_unless_allowed(ucf, caplog):
  names, options = ucf
  pathlib.Path(options["source"], f"{names[0]}.avi").write_bytes(b"damaged")
  with pytest.raises(UserError, match=f"1 of 4 files cannot be read.*{names[0]}"):
    prepare.prepare("ucf101", **options)
  with pytest.raises(UserError, match="not prepared"):
    open_source("ucf101", data_dir=options["data_dir"])
  with caplog.at_level("WARNING"):
    path = prepare.prepare("ucf101", allow_missing=True, **options)
  assert f"left out {names[0]}" in caplog.text
  damaged = json.loads((path / "metadata.json").read_text())["damaged"]
  assert list(damaged) == [names[0]]
  assert len(open_source("ucf101:split2", data_dir=options["data_dir"])) == 2


def test_a_video_cut_off_in_the_middle_keeps_its_beginning(tmp_path):
  path = tmp_path / "cut.mp4"
  media_files.write_video(path, 40, options={"movflags": "faststart"})
  path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
  media_files.write_video(tmp_path / "whole.mp4", 4)
  made = prepare.prepare(
    "video_folder",
    source=str(tmp_path),
    data_dir=str(tmp_path / "data"),
    folder_name="a",
    workers=1,
    heldout_fraction=0.0,
  )
  source = open_source("video_folder:a", data_dir=tmp_path / "data")
  cut = next(source[i] for i in range(2) if source[i].id == "cut.mp4")
  assert 3 < cut.num_frames < 40
  numbers = [media_files.number_of(frame) for frame in _frames(cut)]
  assert numbers == list(range(cut.num_frames))
  damaged = json.loads((made / "metadata.json").read_text())["damaged"]
  assert f"kept the first {cut.num_frames} frames" in damaged["cut.mp4"]


def test_a_stopped_preparation_goes_on_where_it_was(ucf, monkeypatch):
  _, options = ucf
  encoded = []
  encode = encoding.encode

  def encode_two(item, *args):
    if len(encoded) == 2:
      raise KeyboardInterrupt
    encoded.append(item.id)
    return encode(item, *args)

  monkeypatch.setattr(encoding, "encode", encode_two)
  with pytest.raises(KeyboardInterrupt):
    prepare.prepare("ucf101", **options)
  with pytest.raises(UserError, match="not prepared"):
    open_source("ucf101", data_dir=options["data_dir"])
  encoded.append("third")
  prepare.prepare("ucf101", **options)
  assert len(encoded) == 5 and len(set(encoded)) == 5  # each video once
  root = pathlib.Path(options["data_dir"], "ucf101")
  assert sorted(path.name for path in root.iterdir()) == [".lock", "video_256"]
  monkeypatch.setattr(encoding, "encode", None)  # nothing is encoded again
  prepare.prepare("ucf101", **options)


def test_a_failure_while_writing_leaves_no_data_set_behind(ucf, monkeypatch):
  _, options = ucf
  encode, calls = encoding.encode, []

  def encode_three(*args):
    calls.append(args)
    if len(calls) == 4:
      raise OSError(28, "No space left on device")
    return encode(*args)

  monkeypatch.setattr(encoding, "encode", encode_three)
  with pytest.raises(OSError, match="No space left"):
    prepare.prepare("ucf101", **options)
  with pytest.raises(UserError, match="not prepared"):
    open_source("ucf101", data_dir=options["data_dir"])
  prepare.prepare("ucf101", **options)
  assert len(open_source("ucf101", data_dir=options["data_dir"])) == 3


@pytest.mark.slow
def test_worker_processes_write_the_same_data_set(ucf, tmp_path):
  _, options = ucf
  one = prepare.prepare("ucf101", **options)
  many = options | {"workers": 2, "data_dir": str(tmp_path / "many")}
  two = prepare.prepare("ucf101", **many)
  files = sorted(path.name for path in one.iterdir())
  assert files == sorted(path.name for path in two.iterdir()) and len(files) == 8
  for name in files:
    assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "expected one data set name"),
    (["ucf11"], "ucf101"),
    (["ucf101"], "--source is missing"),
    (["ucf101", "--source=/nowhere"], "--splits is missing"),
    (["ucf101", "--sauce=/nowhere"], "Unknown command line flag 'sauce'"),
  ],
)
@pytest.mark.slow
def test_mistakes_on_the_command_line_are_one_message_and_exit_code_2(
  arguments, message, tmp_path
):
  command = [sys.executable, "-m", "motion_jax.prepare", *arguments]
  done = subprocess.run(
    [*command, f"--data_dir={tmp_path}"], capture_output=True, text=True, check=False
  )
  assert done.returncode == 2
  assert message in done.stderr and "Traceback" not in done.stderr
  assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
  ("name", "told"),
  [
    ("kinetics400", "label, youtube_id, time_start, time_end, split"),
    ("imagenet_subset", "<wnid>/<image>"),
  ],
)
def test_help_tells_what_the_files_of_a_data_set_are_called(name, told, capsys):
  with pytest.raises(SystemExit) as end:
    prepare.parse_flags(["prepare", name, "--help"])
  assert end.value.code == 0
  text = capsys.readouterr().out
  assert f"prepare {name} --source=" in text and told in text
  assert "--short_side" in text and "allow_missing: Go on" in text
  assert "Args:" not in text and "Returns:" not in text


@pytest.mark.slow
def test_help_is_no_mistake():
  command = [sys.executable, "-m", "motion_jax.prepare", "--help"]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0 and done.stderr == ""
  assert "--source" in done.stdout and "synthetic_actions" in done.stdout
