"""A folder with damaged and odd videos is trained on to the end."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

DATA = ROOT.parent / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs the project's real videos")
def test_damaged_videos_are_masked_and_named_once(tmp_path):
  videos = tmp_path / "videos"
  (videos / "good").mkdir(parents=True)
  (videos / "odd").mkdir()
  for path in sorted((DATA / "mini_actions").glob("*/*_c01.mp4"))[:60]:
    shutil.copy(path, videos / "good")
  odd = [path for path in (DATA / "clips_misc").iterdir() if path.suffix != ".md"]
  for path in odd:
    shutil.copy(path, videos / "odd")
  result = subprocess.run(
    [
      sys.executable,
      str(ROOT / "tests" / "tiny_mosi.py"),
      f"--config={ROOT}/configs/mosi.py:smoke",
      f"--workdir={tmp_path / 'run'}",
      "--config.data.name=folder",
      f"--config.data.path={videos}",
      "--config.data.max_bad_fraction=0.2",
      "--config.train.duration=2 epochs",
      "--config.train.checkpoint_every=50%",
      "--config.train.log_every=5",
      "--config.eval.probe=False",
    ],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  lines = (tmp_path / "run" / "bad_files.txt").read_text().splitlines()
  names = [line.split("\t")[0] for line in lines]
  assert len(set(names)) == len(names)
  assert all(name.startswith("odd/") for name in names)
  for hopeless in ("audio_only.mp4", "empty.mp4", "no_frames.avi", "text_named.mp4"):
    assert f"odd/{hopeless}" in names
  assert all(result.stderr.count(f"{name}:") == 1 for name in names)
