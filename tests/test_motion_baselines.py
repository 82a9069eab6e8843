"""The baselines beside which encoders stand: a still picture, and the flow."""

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
  assert found["flow"] == found["flow_groups"] == 1
  # A picture is the same for both actions, and its neighbours are as many of each.
  assert found["still"] == found["still_groups"] == 0.5
  assert [*BENCHMARK.baselines(str(videos))] == ["still", "flow"]


def test_equal_votes_go_to_the_more_similar():
  angles = np.array([0.0, 0.1, 0.2, 0.5, 0.6, 0.7, 1.5])
  features = np.stack([np.cos(angles), np.sin(angles)], 1)
  labels = np.array([1, 1, 1, 0, 0, 2, 2])
  assert BENCHMARK.knn(features, labels, np.arange(7) == 0) == 1
  labels[0] = 0
  assert BENCHMARK.knn(features, labels, np.arange(7) == 0) == 0


def test_a_folder_without_classes_has_no_baselines(tmp_path):
  for number in range(3):
    media_files.write_video(tmp_path / f"{number}.mp4", 3)
  with pytest.raises(UserError, match="not every record has a label"):
    BENCHMARK.baselines(str(tmp_path))
