"""The baselines beside which encoders stand: a still picture, and the flow."""

import shutil
import subprocess
import sys

import cv2
import media_files
import numpy as np
import pytest
from conftest import ROOT
from test_config import load

from motion_jax.config import UserError

BENCHMARK = load(ROOT / "tests" / "benchmarks" / "motion_baselines.py")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  """Windows that move left or right over the pictures of four persons."""
  folder = tmp_path_factory.mktemp("videos")
  for number, person in enumerate(("ann", "bob", "cid", "dan")):
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (10, 14, 3), np.uint8)
    scene = cv2.resize(coarse, (160, 96), interpolation=cv2.INTER_CUBIC)
    for action, speed in (("left", -2), ("right", 2)):
      (folder / action).mkdir(exist_ok=True)
      path = folder / action / f"{person}_{action}.mp4"

      def draw(index, scene=scene, speed=speed):
        return scene[:, 32 + speed * (index - 7) :][:, :96]

      media_files.write_video(path, 15, size=(96, 96), draw=draw)
  return folder


def lists(folder, heldout):
  paths = {"train": [], "heldout": []}
  for label, action in enumerate(("left", "right")):
    for path in sorted((folder / action).iterdir()):
      part = "heldout" if path.name.startswith(heldout) else "train"
      paths[part].append(f"{action}/{path.name} {label}")
  files = []
  for part, lines in paths.items():
    files.append(folder / f"{part}.txt")
    files[-1].write_text("\n".join(lines))
  return files


def test_motion_tells_what_a_still_picture_does_not(videos):
  found = BENCHMARK.baselines(str(videos), "/([a-z]+)_", *lists(videos, "dan"))
  assert found["flow_knn"] == found["flow_knn_groups"] == 1
  # A picture is the same for both actions, and its neighbours are as many of each.
  assert found["still_knn"] == found["still_knn_groups"] == 0.5
  assert found["flow_r1"] == found["flow_r1_groups"] == 1
  names = [f"{n}_{key}" for n in ("still", "flow") for key in ("r1", "knn", "linear")]
  assert [*BENCHMARK.baselines(str(videos))] == names


def test_a_still_picture_tells_scenes(tmp_path):
  rng = np.random.default_rng(0)
  for label in ("field", "pool", "street"):
    (tmp_path / label).mkdir()
    scene = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (96, 96))
    for number in range(3):
      path = tmp_path / label / f"{number}.mp4"
      draw = lambda index, scene=scene, number=number: np.roll(scene, number, 0)  # noqa: E731
      media_files.write_video(path, 6, size=(96, 96), draw=draw)
  found = BENCHMARK.baselines(str(tmp_path))
  assert found["still_r1"] == found["still_knn"] == found["still_linear"] == 1
  with pytest.raises(UserError, match="both --train_list and --heldout_list"):
    BENCHMARK.baselines(str(tmp_path), train_list="a.txt")


def test_a_damaged_video_is_named_and_left_out(videos, tmp_path, capsys):
  shutil.copytree(videos, tmp_path, dirs_exist_ok=True)
  arguments = (str(tmp_path), "/([a-z]+)_", *lists(tmp_path, "dan"))
  for action in ("left", "right"):
    (tmp_path / action / f"bob_{action}.mp4").write_bytes(b"no video")
  found = BENCHMARK.baselines(*arguments)
  told = capsys.readouterr().err
  for action in ("left", "right"):
    assert f"left out: {action}/bob_{action}.mp4 is damaged: " in told
  assert found["flow_knn"] == found["flow_knn_groups"] == 1
  assert found["still_knn_groups"] == 0.5
  for action in ("left", "right"):
    (tmp_path / action / f"dan_{action}.mp4").write_bytes(b"")
  with pytest.raises(UserError, match="all videos of a part are damaged"):
    BENCHMARK.baselines(*arguments)


def test_the_command_tells_of_wrong_groups_at_once(videos):
  script = ROOT / "tests" / "benchmarks" / "motion_baselines.py"
  command = [sys.executable, script, videos, "--groups=x"]
  found = subprocess.run(command, capture_output=True, text=True)
  assert found.returncode == 1
  (line,) = found.stderr.splitlines()
  assert line.startswith("error: eval.groups='x' finds nothing in 6 of 6 names")


def test_a_folder_without_classes_has_no_baselines(tmp_path):
  for number in range(3):
    media_files.write_video(tmp_path / f"{number}.mp4", 3)
  with pytest.raises(UserError, match="not every video has a label"):
    BENCHMARK.baselines(str(tmp_path))
