"""Ctrl-C before the first step is answered at once, and the same command goes on."""

import gc
import signal
import subprocess
import sys
import threading
import time

import children
import pytest
from conftest import ROOT

from motion_jax.training import interrupts, stopping

# `tiny_main` on the embedded videos, which are made slowly; `busy` lets the handlers of
# Python wait, as a compiler does.
PROGRAM = """
import ctypes, sys, time
import tiny_main
from motion_jax import main, methods, train
from motion_jax.commands import command
from motion_jax.data.builders import synthetic_actions

def busy(seconds):
  mutex, until = ctypes.create_string_buffer(64), (ctypes.c_long * 2)()
  until[0] = int(time.time() + seconds)
  libc = ctypes.CDLL(None)
  libc.pthread_mutex_lock(mutex)
  libc.pthread_mutex_timedlock(mutex, until)

def slowly(function, wait, text):
  def slow(*arguments):
    print(text, file=sys.stderr, flush=True)
    wait()
    return function(*arguments)
  return slow

if sys.argv.pop(1) == "data":
  synthetic_actions._example = slowly(
    synthetic_actions._example, lambda: time.sleep(0.3), "EXAMPLE"
  )
else:
  train.compile_step = slowly(train.compile_step, lambda: busy(6), "COMPILING")
methods.METHODS["mosi"] = tiny_main.Pictures
sys.exit(command.run(main.main, sys.argv))
"""
AT = {"data": "EXAMPLE", "compiling": "COMPILING"}


def command(place, folder):
  return [
    *(sys.executable, "-c", PROGRAM, place, f"--config={ROOT}/configs/mosi.py:smoke"),
    *(f"--workdir={folder}/run", f"--config.data.data_dir={folder}/data"),
    *("--config.train.best=", "--config.eval.probe=False"),
    "--config.eval.online_videos=0",
  ]


class Heard:
  """What a process says on stderr, with the times."""

  def __init__(self, process):
    self.lines = []
    self._thread = threading.Thread(target=self._read, args=(process.stderr,))
    self._thread.start()

  def _read(self, pipe):
    for line in pipe:
      self.lines.append((time.monotonic(), line))

  def wait_for(self, text, seconds=120):
    """Returns when a line with the text came."""
    patience = time.monotonic() + seconds
    while time.monotonic() < patience:
      for when, line in self.lines:
        if text in line:
          return when
      time.sleep(0.01)
    raise AssertionError(f"no {text!r} in {self.text()}")

  def text(self):
    return "".join(line for _, line in self.lines)

  def end(self, process, seconds=60):
    code = process.wait(seconds)
    self._thread.join()
    return code


def test_an_interruption_that_meets_the_garbage_collector_is_not_lost(capfd):
  """There, and in destructors, Python prints exceptions and goes on."""

  def collect(phase, _):
    if phase == "start":
      gc.callbacks.remove(collect)
      raise stopping.Stopped

  gc.callbacks.append(collect)
  with pytest.raises(stopping.Stopped), interrupts.answered(lambda: None):
    gc.collect()
    for _ in range(1000):
      time.sleep(0.01)
  assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
  ("place", "after"),
  [("data", ";"), ("compiling", " after compiling, which the next start need not")],
)
def test_ctrl_c_before_the_first_step_is_answered_at_once(place, after, tmp_path):
  words, environment = command(place, tmp_path), children.environment(1)
  options = dict(env=environment, stderr=subprocess.PIPE)
  with children.started(words, **options) as [process]:
    heard = Heard(process)
    heard.wait_for(AT[place])
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    answered = heard.wait_for(f"stopping{after}")
    code = heard.end(process)
  assert answered - sent < 1
  assert code == 0, heard.text()
  assert "press Ctrl-C again to stop at once" in heard.text()
  assert "stopped by a signal; the same command goes on" in heard.text()
  assert "Traceback" not in heard.text()
  assert [path.name for path in (tmp_path / "run").iterdir()].count("checkpoints") == 1
  again = children.run(words, env=environment)
  assert again.returncode == 0, again.stderr
  assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_a_signal_between_two_parts_of_the_set_up_begins_no_other():
  begun = []
  with stopping.StopSignal() as stop:
    signal.raise_signal(signal.SIGTERM)
    with stop.part(interruptible=True):
      begun.append("motion, for hours")
    begun.append("what comes after it")
  assert stop.requested and not begun


def test_a_second_ctrl_c_ends_a_compilation(tmp_path):
  options = dict(env=children.environment(1), stderr=subprocess.PIPE)
  with children.started(command("compiling", tmp_path), **options) as [process]:
    heard = Heard(process)
    heard.wait_for("COMPILING")
    process.send_signal(signal.SIGINT)
    heard.wait_for("stopping after compiling")
    time.sleep(1)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    code = heard.end(process)
  assert time.monotonic() - sent < 3
  assert code == 130
  assert heard.text().endswith("the same command goes on from what was saved before\n")


@pytest.mark.parametrize("numbers", [[signal.SIGINT] * 2, [signal.SIGTERM] * 3])
def test_a_signal_that_a_wrapper_passes_on_again_counts_once(numbers):
  with stopping.StopSignal() as stop:
    for number in numbers:
      signal.raise_signal(number)
    assert stop.requested
  with pytest.raises(KeyboardInterrupt), stopping.StopSignal():
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.7)
    signal.raise_signal(signal.SIGINT)
