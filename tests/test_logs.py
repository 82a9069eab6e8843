"""The files a run writes survive interruption."""

import json
import struct
import sys
import time

import children
import cv2
import numpy as np
import pytest
from conftest import ROOT
from tensorboardX.proto import event_pb2

from motion_jax import logs


def events(workdir):
  """All events of a run, as TensorBoard reads them."""
  found = []
  for path in sorted(workdir.glob("*tfevents*")):
    data = path.read_bytes()
    while data:  # length, its check sum, the event, its check sum
      (length,) = struct.unpack("<Q", data[:8])
      found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return found


def shown(workdir):
  return [(e.step, value) for e in events(workdir) for value in e.summary.value]


def test_scalars_and_pictures_are_in_the_events(tmp_path):
  picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
  (tmp_path / "figures" / "mas").mkdir(parents=True)
  for name in ("figures/curves.png", "figures/mas/pretext.png"):
    cv2.imwrite(str(tmp_path / name), picture)
  log = logs.Logs(tmp_path, step=0)
  log.metrics(1, {"train/loss": 0.5})
  log.pictures(2, tmp_path / "figures")
  (scalar, *images) = shown(tmp_path)  # before it is closed
  log.close()
  assert (scalar[0], scalar[1].tag, scalar[1].simple_value) == (1, "train/loss", 0.5)
  assert [value.tag for _, value in images] == ["figures/curves", "figures/mas/pretext"]
  for step, value in images:
    assert (step, value.image.height, value.image.width) == (2, 20, 30)
    data = np.frombuffer(value.image.encoded_image_string, np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), picture)


def test_a_resumed_run_takes_back_the_events_of_later_steps(tmp_path):
  log = logs.Logs(tmp_path, step=7)
  log.close()
  [start] = [event for event in events(tmp_path) if event.HasField("session_log")]
  assert start.session_log.status == event_pb2.SessionLog.START
  assert start.step == 8  # the first that is taken back


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_last(pictures, tmp_path):
  command = [
    *("bash", "-c", 'ulimit -f 2; exec "$@"', "-"),  # files of 2 kB at most
    *(sys.executable, ROOT / "tests" / "tiny_main.py"),
    *(f"--config={ROOT}/configs/mosi.py:smoke", f"--workdir={tmp_path}/run"),
    *("--config.data.name=folder", f"--config.data.path={pictures}"),
    *("--config.train.duration=40 steps", "--config.train.checkpoint_every=2 steps"),
    *("--config.train.best=", "--config.eval.probe=False"),
  ]
  # Without the cache of compiled programs, where the limit would cut files short.
  environment = {**children.environment(1), "JAX_ENABLE_COMPILATION_CACHE": "0"}
  result = children.run(command, env=environment)
  assert result.returncode == 2, result.stderr
  *lines, last = result.stderr.splitlines()
  assert last.startswith("error: ") and "File too large" in last
  assert "free some space" in last
  assert not [line for line in lines if "too large" in line or "Traceback" in line]


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


def test_what_takes_long_tells_of_itself_meanwhile(caplog, monkeypatch):
  monkeypatch.setattr(logs.logger, "propagate", True)
  monkeypatch.setattr(logs, "_MINUTE", 0.01)
  with caplog.at_level("INFO", "motion_jax"), logs.long_work("baking", "an hour"):
    deadline = time.monotonic() + 20
    while len(caplog.messages) < 2 and time.monotonic() < deadline:
      time.sleep(0.01)
  assert caplog.messages[0] == "baking (an hour)"
  assert caplog.messages[1].startswith("still baking: ")
  assert caplog.messages[-1].startswith("baking took ")
