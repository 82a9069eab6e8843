"""Progress of long work, on a terminal and in a file."""

import io
import sys
import time

import pytest
import tqdm

from motion_jax import logs, progress


def run(monkeypatch, is_terminal, seconds=0, **options):
  file = io.StringIO()
  file.isatty = lambda: is_terminal
  monkeypatch.setattr(sys, "stderr", file)
  monkeypatch.setattr(progress, "_FILE_SECONDS", seconds)
  with progress.progress_bar(total=40, unit=" videos", desc="testing", **options) as it:
    for _ in range(40):
      it.update(1)
      if not seconds:
        it.refresh()
  return file.getvalue()


def test_a_file_gets_whole_lines_with_the_time_left(monkeypatch):
  text = run(monkeypatch, False)
  assert "\r" not in text
  lines = text.split("\n")
  assert lines.pop() == ""
  assert any("20/40 [00:00<00:00, " in line for line in lines)
  assert all(line.startswith("testing: ") for line in lines)


def test_a_bar_that_is_removed_leaves_no_blank_line_in_a_file(monkeypatch):
  assert "\n\n" not in run(monkeypatch, False, leave=False)


def test_what_is_done_at_once_leaves_no_line_in_a_file(monkeypatch):
  assert run(monkeypatch, False, seconds=60, leave=False) == ""
  assert "testing" in run(monkeypatch, True, seconds=60, leave=False)


def test_a_terminal_gets_a_bar(monkeypatch):
  text = run(monkeypatch, True)
  assert "\r" in text
  assert isinstance(progress.progress_bar([]), tqdm.tqdm)


@pytest.mark.parametrize(("seconds", "told"), [((0.5, 0.0, 0.5), 0), ((0.5,) * 3, 1)])
def test_a_lasting_wait_for_data_is_told_once(caplog, monkeypatch, seconds, told):
  now = 0.0
  monkeypatch.setattr(time, "monotonic", lambda: now)
  speed = logs.Progress(total_steps=3, clips_per_step=8, step=0)
  for step, waited in enumerate(seconds, 1):
    with speed.waiting():
      now += waited
    now += 2 - waited
    values, text = speed.measure(step)
    assert values == {"perf/clips_per_second": 4.0, "perf/data_wait": waited / 2}
    assert text == f"4.0 clips/s  data wait {waited / 2:.0%}  left {6 - 2 * step}s"
  assert caplog.text.count("data.workers") == told
