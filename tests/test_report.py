"""What a finished training tells and leaves."""

import json
import shlex

import pytest
from commands import parsed
from test_config import CONFIGS, load

from motion_jax.data.inputs import Sources
from motion_jax.data.sources import DecodeError, Record
from motion_jax.methods import METHODS, make_method
from motion_jax.training import report


class Videos(list):
  name, split, classes = "videos", "train", ("a",)

  def id_of(self, index):
    return self[index].id


def written(folder, caplog, monkeypatch, kind="video", method="mosi"):
  """The lines that the report of a run with two rows of metrics logs."""
  # As before a command sent the log lines to its own stderr.
  monkeypatch.setattr(report.logger, "propagate", True)
  folder.mkdir()
  rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, "eval/pretext_accuracy": 0.5}]
  text = "\n".join(json.dumps(row) for row in rows)
  (folder / "metrics.jsonl").write_text(text + "\n")
  source = Videos([Record("a", kind, b"")])
  with caplog.at_level("INFO", "motion_jax"):
    report.write_report(folder, Sources(source, source), 7, METHODS[method], {})
  return caplog.text.splitlines()


def test_a_report_has_the_last_values_the_curves_and_the_encoder(
  tmp_path, caplog, monkeypatch
):
  run = tmp_path / "run"
  lines = written(run, caplog, monkeypatch)
  summary = json.loads((run / "summary.json").read_text())
  assert summary["train/loss"] == 2 and summary["eval/pretext_accuracy"] == 0.5
  assert (summary["parameters"], summary["bad_files"]) == (7, 0)
  assert (run / "figures" / "curves.png").exists()
  assert "  pretext_accuracy        0.500" in lines
  assert f"  encoder: motion_jax.load_encoder({str(run)!r})" in lines
  assert "predictions.tsv" not in caplog.text
  assert "could not be decoded" not in caplog.text
  (run / "bad_files.txt").write_text("b.mp4\tno video\nc.mp4\tcut short\n")
  (run / "predictions.tsv").touch()
  source = Videos([Record("a", "video", b"")])
  with caplog.at_level("INFO", "motion_jax"):
    report.write_report(run, Sources(source, source), 7, METHODS["classify"], {})
  assert f"2 files could not be decoded: {run / 'bad_files.txt'}\n" in caplog.text
  assert f"\n  of each video: {run / 'predictions.tsv'}\n" in caplog.text


@pytest.mark.parametrize(
  ("method", "kind", "expected"),
  [
    ("mosi", "video", ["evaluate", "visualize"]),
    ("joint", "frames", ["evaluate", "visualize"]),
    ("mosi", "image", ["evaluate", "visualize"]),
    ("classify", "video", ["extract", "visualize"]),
    ("detect", "video", []),
  ],
)
def test_a_run_ends_with_the_commands_to_try_next(
  method, kind, expected, tmp_path, caplog, monkeypatch
):
  run = tmp_path / "my run"
  lines = written(run, caplog, monkeypatch, kind, method)
  found = [line.removeprefix("  next: ") for line in lines if "  next: " in line]
  start = ["python", "-m", "motion_jax.main"]
  modes = []
  for words in map(shlex.split, found):
    if words[2].endswith("extract"):  # of videos that are new
      assert words[3:5] == [f"--init_from={run}", "--path=NEW_VIDEOS"]
      modes.append("extract")
      continue
    assert words[:3] == start
    code, config, _ = parsed(words[3:])
    assert (code, config.init_from) == (0, str(run))
    # A run on images is tested on videos, which it does not know.
    assert config.data.path == ("VIDEOS" if kind == "image" else None)
    modes.append(config.mode)
  assert modes == expected


def test_a_run_without_labels_ends_with_how_its_features_are_had(tmp_path):
  source = Videos([Record("a", "video", b"")])
  source.name, source.classes = "/my videos", None
  first, second = report.next_commands(tmp_path, source, METHODS["mosi"])
  words = shlex.split(first)
  assert words[:3] == ["python", "-m", "motion_jax.extract"]
  assert words[3:] == [f"--init_from={tmp_path}", "--path=/my videos"]
  assert "configs/visualize.py" in second


@pytest.mark.parametrize(
  ("name", "arg", "network"),
  [
    ("mosi", "synthetic_actions,network=r2d3d_18", "r2d3d_18"),
    ("mas", "synthetic_actions", "r3d_10"),
  ],
)
def test_a_small_run_ends_with_how_it_is_fine_tuned(name, arg, network, tmp_path):
  method = make_method(load(CONFIGS / f"{name}.py").get_config(arg))
  source = Videos([Record("a", "video", b"")])
  source.name = "synthetic_actions"
  *_, last = report.next_commands(tmp_path, source, method)
  code, config, _ = parsed(shlex.split(last)[3:])
  assert (code, config.model.name) == (0, network)
  assert config.model.width == method.config.model.width
  assert config.init_from == str(tmp_path)


def test_a_run_whose_first_record_is_damaged_ends_as_others_do(tmp_path):
  class Damaged(Videos):
    def __getitem__(self, index):
      raise DecodeError("damaged")

  found = report.next_commands(tmp_path, Damaged(), METHODS["mosi"])
  assert len(found) == 2 and "VIDEOS" not in found[0]
