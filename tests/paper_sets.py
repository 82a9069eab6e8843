"""Small sets in the formats of SSv2, ASLAN, YUPENN and AVA, as they are downloaded."""

import json
import pathlib

import media_files
import numpy as np
import scipy.io

from motion_jax.data.builders import aslan, ava, something_something_v2, yupenn


def write_video(path, count=8, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  media_files.write_video(path, count, **options)


def options_for(tmp_path):
  source, splits = tmp_path / "videos", tmp_path / "lists"
  source.mkdir()
  splits.mkdir()
  return {
    "source": str(source),
    "splits": str(splits),
    "data_dir": str(tmp_path / "data"),
    "workers": 1,
  }


def something(tmp_path, monkeypatch):
  """Three webm videos in train, two in validation, of two labels."""
  options = options_for(tmp_path)
  monkeypatch.setattr(something_something_v2, "SIZES", {"train": 3, "val": 2})
  monkeypatch.setattr(something_something_v2, "CLASSES", 2)
  lists = pathlib.Path(options["splits"])
  labels = {"Closing something": "1", "Bending something so that it deforms": "0"}
  (lists / "something-something-v2-labels.json").write_text(json.dumps(labels))
  templates = ["Closing [something]", "Bending [something] so that it deforms"]
  for name, numbers in {"train": (12, 7, 300), "validation": (5, 41)}.items():
    rows = [
      {"id": str(n), "template": templates[n % 2], "placeholders": ["a"]}
      for n in numbers
    ]
    path = lists / f"something-something-v2-{name}.json"
    path.write_text(json.dumps(rows))
    for number in numbers:
      path = pathlib.Path(options["source"], f"{number}.webm")
      write_video(path, 6 + number % 7, codec="libvpx")
  return options


def pairs(tmp_path, monkeypatch):
  """ASLAN: two folds of two pairs of five videos."""
  options = options_for(tmp_path)
  monkeypatch.setattr(aslan, "FOLDS", 2)
  monkeypatch.setattr(aslan, "PAIRS", 2)
  rows = [[[1, 2, 1, 9, 9], [1, 3, 0, 9, 4]], [[3, 4, 1, 4, 4], [5, 3, 0, 2, 4]]]
  table = np.array(rows, float).transpose(1, 2, 0)
  scipy.io.savemat(f"{options['splits']}/View2.mat", {"action_splits_pairs": table})
  for number in range(1, 6):
    write_video(pathlib.Path(options["source"], f"{number:04d}.avi"), codec="mpeg4")
  return options


def scenes(tmp_path, monkeypatch):
  """YUPENN: two scenes of two videos."""
  options = options_for(tmp_path) | {"splits": ""}
  monkeypatch.setattr(yupenn, "CLASSES", 2)
  monkeypatch.setattr(yupenn, "VIDEOS", 2)
  for name in ("Beach", "Elevator"):
    for number in range(2):
      path = pathlib.Path(options["source"], "YUPENN", name, f"{name}_{number}.mov")
      write_video(path)
  return options


def detections(tmp_path, monkeypatch):
  """AVA: a training movie of 8 seconds at 5 fps, one of 7 for validation."""
  options = options_for(tmp_path)
  monkeypatch.setattr(ava, "VIDEOS", {"train": 1, "val": 1})
  monkeypatch.setattr(ava, "ACTIONS", 3)
  monkeypatch.setattr(ava, "EVALUATED", 2)
  lists = pathlib.Path(options["splits"])
  items = [f'item {{\n  name: "action {n}"\n  id: {n}\n}}\n' for n in (1, 2, 3)]
  (lists / "ava_action_list_v2.2.pbtxt").write_text("".join(items))
  (lists / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").write_text(
    "".join(items[:2])
  )
  (lists / "ava_train_v2.2.csv").write_text(
    "-aMovie,0002,0.1,0.2,0.5,0.9,1,0\n-aMovie,0002,0.1,0.2,0.5,0.9,3,0\n"
    "-aMovie,0005,0.2,0.2,0.6,0.9,2,0\n-aMovie,0006,0.2,0.2,0.6,0.9,2,0\n"
  )
  (lists / "ava_val_v2.2.csv").write_text("b_Movie,0003,0.1,0.1,0.5,0.5,2,7\n")
  (lists / "ava_train_excluded_timestamps_v2.2.csv").write_text("-aMovie,0006\n")
  (lists / "ava_val_excluded_timestamps_v2.2.csv").write_text("")
  (lists / "ava_val_predicted_boxes.csv").write_text(
    "b_Movie,0003,0.11,0.1,0.5,0.5,,0.97\nb_Movie,0004,0.1,0.1,0.4,0.5,,0.85\n"
  )
  write_video(pathlib.Path(options["source"], "-aMovie.mkv"), 40, ticks=5)
  write_video(pathlib.Path(options["source"], "b_Movie.mp4"), 35, ticks=5)
  return options


SETS = {
  "something_something_v2": something,
  "aslan": pairs,
  "yupenn": scenes,
  "ava": detections,
}
