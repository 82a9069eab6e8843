"""The files a run writes survive interruption."""

import json

import pytest

from motion_jax import logs


def test_rows_after_the_resumed_step_are_dropped(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "tr')
  log = logs.Logs(tmp_path, step=2)
  log.metrics(3, {"train/loss": 0.1})
  log.close()
  assert [row["step"] for row in logs.read_rows(path)] == [1, 2, 3]


def test_a_fresh_run_starts_an_empty_file(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
  logs.Logs(tmp_path, step=0).close()
  assert logs.read_rows(tmp_path / "metrics.jsonl") == []


def test_values_are_written_exactly(tmp_path):
  log = logs.Logs(tmp_path, step=0)
  log.metrics(1, {"train/loss": 0.1 + 0.2})
  log.close()
  text = (tmp_path / "metrics.jsonl").read_text()
  assert json.loads(text)["train/loss"] == 0.1 + 0.2


@pytest.mark.parametrize(
  ("seconds", "text"), [(42.4, "42s"), (185, "3m05s"), (7800, "2h10m")]
)
def test_durations_read_well(seconds, text):
  assert logs.duration_text(seconds) == text
