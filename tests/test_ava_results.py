"""A file of detections is scored on a prepared AVA."""

import json

import paper_sets
import pytest
from test_config import CONFIGS, load

from motion_jax import main, prepare
from motion_jax.config import UserError


@pytest.fixture
def ava(tmp_path, monkeypatch):
  """An AVA whose validation part has two actions on a frame, and one excluded frame."""
  options = paper_sets.detections(tmp_path, monkeypatch)
  lists = tmp_path / "lists"
  (lists / "ava_val_v2.2.csv").write_text(
    "b_Movie,0003,0.1,0.1,0.5,0.5,1,7\nb_Movie,0003,0.1,0.1,0.5,0.5,2,7\n"
    "b_Movie,0003,0.1,0.1,0.5,0.5,3,7\nb_Movie,0005,0.1,0.1,0.5,0.5,1,7\n"
  )
  (lists / "ava_val_excluded_timestamps_v2.2.csv").write_text("b_Movie,0005\n")
  prepare.prepare("ava", **options)
  return options["data_dir"]


def _score(data_dir, tmp_path, text):
  path = tmp_path / "detections.csv"
  path.write_text(text)
  config = load(CONFIGS / "evaluate.py").get_config("ava")
  config.results, config.data.data_dir = str(path), data_dir
  return main.MODES[config.mode](config, tmp_path / "out")


def test_evaluated_actions_on_frames_that_count_are_scored(ava, tmp_path):
  found = _score(
    ava,
    tmp_path,
    "b_Movie,3,0.1,0.1,0.5,0.5,1,1\n"  # action 1: true, before ...
    "b_Movie,4,0.1,0.1,0.5,0.5,1,0\n"  # ... a false one of score 0, not 1
    "b_Movie,0005,0.6,0.6,0.9,0.9,1,1\n"  # excluded
    "b_Movie,0003,0.1,0.1,0.5,0.5,3,0.9\n"  # not evaluated
    "b_Movie,0004,0.1,0.1,0.5,0.5,2,0.9\n"  # action 2: false, before ...
    "b_Movie,0003,0.1,0.1,0.5,0.51,2,0.8\n",  # ... a true one: 1/2
  )
  assert found == {"eval/frame_map": pytest.approx(0.75)}
  written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
  assert written["average_precision"] == {"action 1": 1.0, "action 2": 0.5}


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "holds no detections"),
    ("b_Movie,0003,0.1,0.1,0.5,0.5,1\n", "line 1: .* is not .*action,score"),
    ("b_Movie,0003,0.1,0.1,0.5,0.5,1,nan\n", "not finite"),
  ],
)
def test_wrong_files_are_explained(ava, tmp_path, text, message):
  with pytest.raises(UserError, match=message):
    _score(ava, tmp_path, text)
  config = load(CONFIGS / "evaluate.py").get_config("ava")
  with pytest.raises(UserError, match=r"--config.results=FILE.csv"):
    main.MODES[config.mode](config, tmp_path / "out")
