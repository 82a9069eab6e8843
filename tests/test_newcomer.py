"""README and its pages: train, evaluate, fine-tune, look, extract, export.

The commands are their own, with the smallest recipes, a folder of three short
videos in place of `~/videos` and one of two classes in place of `~/classes`.
"""

import os
import re
import shlex
import subprocess
import sys

import media_files
import pytest
from conftest import ROOT
from test_readme import COMMANDS, TEXT

RUN = "runs/mosi-synthetic_actions"
# Runs `-m MODULE ...` with a short network: it compiles soon.
RUNNER = """
import runpy, sys, tiny
tiny.shorten_network()
sys.argv[:3] = [sys.argv[2]]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
PROGRAMS = [["-m", f"motion_jax.{name}"] for name in ("main", "extract", "export")]
SMALL = {  # commands without that run, and what stands for them
  "--config=configs/mosi.py": ["--config=configs/mosi.py:smoke", f"--workdir={RUN}"],
  "--config=configs/mosi.py:folder": [
    "--config=configs/mosi.py:smoke",
    "--config.data.name=folder",
    "--workdir=runs/mosi-folder",
  ],
  "--init_from=runs/mosi-folder": ["--init_from=runs/mosi-folder"],
  "--config=configs/finetune.py:synthetic_actions,scratch": [
    "--config=configs/finetune.py:smoke,scratch"
  ],
  "--config=configs/finetune.py:folder,scratch": [
    "--config=configs/finetune.py:smoke,scratch",
    "--config.data.name=folder",
    "--workdir=runs/own-classes",
  ],
}


def commands(home):
  """The commands that need no data but one's own, made small, in their order."""
  for line in COMMANDS:
    words = shlex.split(re.sub(r"~(?=/(videos|classes)\b)", str(home), line))
    program, rest = words[:2], words[2:]
    if program == ["-m", "motion_jax.convert"]:  # of what is exported before
      small = " ".join(rest).replace("FILE.pth", "encoder.pth")
      yield [*program, *small.replace(":hmdb51", ":smoke").split()]
    elif program in PROGRAMS and rest[0] in SMALL:
      yield [*program, *SMALL[rest[0]], *rest[1:]]
    elif program in PROGRAMS and any(RUN in word for word in words):
      small = r"^(--config=configs/\w+\.py)(:synthetic_actions)?"
      words = [re.sub(small, r"\1:smoke", word) for word in words]
      own = any(word.startswith("--config.data.path=") for word in words)
      if "--config=configs/visualize.py:smoke" in words and not own:
        words.append(f"--config.data.path={home / 'videos'}")
      yield words


@pytest.mark.slow
def test_the_commands_of_the_pages_work_one_after_the_other(tmp_path):
  (tmp_path / "videos").mkdir()
  for number, size in enumerate([(48, 96), (96, 48), (48, 96)]):  # two are the same
    media_files.write_video(tmp_path / "videos" / f"{number}.mp4", 12, size=size)
  for name in ("one", "other"):
    (tmp_path / "classes" / name).mkdir(parents=True)
    for number in range(4):
      media_files.write_video(tmp_path / "classes" / name / f"{number}.mp4", 12)
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
  options = dict(cwd=tmp_path, env=environment, capture_output=True, text=True)
  done = []
  for words in commands(tmp_path):
    found = subprocess.run([sys.executable, "-c", RUNNER, *words], **options)
    assert found.returncode == 0, f"{words}\n{found.stdout}\n{found.stderr}"
    done.append(words[1].partition(".")[2] + " " + words[2])
  assert len(done) == 13, done
  # The classifier that is trained is asked about new videos.
  own = r"runs/finetune-folder-r3d_10(-scratch)?"
  (new, *_) = [shlex.split(line) for line in COMMANDS if re.search(own, line)]
  new = [re.sub(own, "runs/own-classes", word) for word in new]
  new = [word.replace("~/new", str(tmp_path / "videos")) for word in new]
  found = subprocess.run([sys.executable, "-c", RUNNER, *new], **options)
  assert found.returncode == 0, found.stderr
  rows = [line.split("\t") for line in (tmp_path / "new.tsv").read_text().splitlines()]
  assert rows[0][:2] == ["video", "predicted"] and len(rows) == 4
  assert {row[1] for row in rows[1:]} <= {"one", "other"}
  for name in ("video.mp4", "new.mp4"):
    media_files.write_video(tmp_path / name, 12)
  blocks = dict.fromkeys(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
  code, listed, duplicates, classify = blocks
  code += "\nassert video.shape == (10, 4, 32, 32, 3) and features.ndim == 1"
  code = f"import tiny\ntiny.shorten_network()\n{code}"
  found = subprocess.run([sys.executable, "-c", code], **options)
  assert found.returncode == 0, found.stderr
  found = subprocess.run([sys.executable, "-c", listed], **options)
  assert [line[:5] for line in found.stdout.splitlines()][:2] == ["0.mp4", "1.mp4"]
  found = subprocess.run([sys.executable, "-c", duplicates], **options)
  assert found.returncode == 0, found.stderr
  assert found.stdout.splitlines()[0] == "1.000 0.mp4 2.mp4"
  classify = re.sub(own, "runs/own-classes", classify)
  code = f"import tiny\ntiny.shorten_network()\n{classify}"
  found = subprocess.run([sys.executable, "-c", code], **options)
  assert found.returncode == 0, found.stderr
  assert found.stdout.strip() in ("one", "other")
  drawn = [f"{run}/pictures/gradcam.png" for run in ("visualize", "my-videos")]
  for name in ("evaluate/evaluation.json", *drawn):
    assert (tmp_path / "runs" / name).exists()
  for name in ("videos.npz", "encoder.pth", "encoder.stablehlo"):
    assert (tmp_path / name).exists()
