"""The training loop disturbs no device: no transfers, no compilation, no waiting."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT
from test_config import CONFIGS, load
from tiny_benchmark import Colours

from motion_jax import logs, methods, train
from motion_jax.config import UserError
from motion_jax.evaluation import held_out


@pytest.fixture
def config(monkeypatch, pictures):
  """Six steps of a method that compiles in a second."""
  monkeypatch.setitem(methods.METHODS, "mosi", Colours)
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.data.name, config.data.path = "folder", str(pictures)
  config.train.duration = config.train.checkpoint_every = config.eval.every = "6 steps"
  config.train.best = ""
  config.eval.probe = config.eval.linear = False
  return config


def in_place_of_the_step(monkeypatch, wrap):
  """Lets `wrap` make the step of the loop from the compiled one."""
  original = train.compile_step
  monkeypatch.setattr(train, "compile_step", lambda *given: wrap(original(*given)))


def test_what_an_evaluation_would_stumble_over_is_told_before_the_training(
  monkeypatch, config, tmp_path
):
  def predict(self, params, aux, batch):
    return {"loss": jax.numpy.zeros(len(batch["valid"]))}

  monkeypatch.setattr(Colours, "predict", predict)
  monkeypatch.setattr(train, "compile_step", None)
  with pytest.raises(ValueError, match="'mask' among them"):
    train.train(config, tmp_path)


def test_a_key_that_every_training_needs_is_named(config, tmp_path):
  del config.optim["name"], config.train["duration"]
  with pytest.raises(UserError, match=r"lacks optim\.name, train\.duration"):
    train.train(config, tmp_path)


def leaking_step(monkeypatch):
  def wrap(compiled):
    def step(state, batch):
      state, loss = compiled(state, batch)
      return state, loss * np.float32(2)

    return step

  in_place_of_the_step(monkeypatch, wrap)


def leaking_bookkeeping(monkeypatch):
  monkeypatch.setattr(
    train.LossWatch, "add", lambda self, step, loss: loss + np.float32(1)
  )


@pytest.mark.slow
@pytest.mark.parametrize("leak", [leaking_step, leaking_bookkeeping])
def test_a_transfer_that_nobody_asked_for_stops_the_run(
  monkeypatch, config, tmp_path, leak
):
  leak(monkeypatch)
  with pytest.raises(Exception, match=r"Disallowed host-to-device transfer"):
    train.train(config, tmp_path)


@pytest.mark.slow
def test_nothing_is_traced_or_compiled_after_the_first_step(
  monkeypatch, config, tmp_path
):
  events = []

  def listen(name, *_, **__):
    if name.startswith("/jax/core/compile"):
      events.append(name)

  def evaluator(*_):
    events.append("end")
    return {"eval/loss": 0.0}

  after = train.StopSignal.after
  monkeypatch.setattr(held_out.HeldOut, "__call__", evaluator)
  monkeypatch.setattr(
    train.StopSignal, "after", lambda *given: events.append("step") or after(*given)
  )
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    train.train(config, tmp_path)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  first = events.index("step")
  assert any(text.startswith("/jax") for text in events[:first])
  assert events[first : events.index("end")] == ["step"] * 6


class Loss:
  """Stands in for a loss on a device; notes when its value is asked for."""

  def __init__(self, step, asked):
    self.step, self.asked = step, asked

  def block_until_ready(self):
    return self

  def __array__(self, dtype=None, copy=None):
    self.asked.append(self.step)
    return np.ones((), dtype)

  def __float__(self):
    return float(self.__array__())


@pytest.mark.slow
def test_values_are_fetched_when_they_are_logged_only(monkeypatch, config, tmp_path):
  config.train.log_every = 3
  asked, seen = [], []

  def wrap(compiled):
    return lambda *given: (compiled(*given)[0], Loss(len(seen) + 1, asked))

  in_place_of_the_step(monkeypatch, wrap)
  monkeypatch.setattr(train.StopSignal, "after", lambda *_: seen.append(sorted(asked)))
  train.train(config, tmp_path)
  assert seen == [[], [], *[[1, 2, 3]] * 3, [1, 2, 3, 4, 5, 6]]
  assert sorted(asked) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_what_a_signal_leaves_unmeasured_is_measured_by_the_next_start(
  monkeypatch, config, tmp_path
):
  calls = []

  def at_the_end(*_):
    calls.append("end")
    if len(calls) == 2:
      raise KeyboardInterrupt  # is killed the first time in the run that is stopped
    return {"eval/top1": 0.5}

  at_the_end.what = "the end"
  make = train.make_evaluators
  monkeypatch.setattr(
    train, "make_evaluators", lambda *given: [*make(*given), at_the_end]
  )
  straight, stopped = tmp_path / "straight", tmp_path / "stopped"
  expected = train.train(config, straight)
  with monkeypatch.context() as patch:
    request = lambda self, step: setattr(self, "requested", step == 6)  # noqa: E731
    patch.setattr(train.StopSignal, "after", request)
    assert train.train(config, stopped) == {}
  assert not (stopped / "summary.json").exists() and len(calls) == 1
  with pytest.raises(KeyboardInterrupt):
    train.train(config, stopped)
  assert train.train(config, stopped) == {"eval/top1": 0.5}
  assert train.train(config, stopped) == {} and len(calls) == 3
  first, second = ((run / "metrics.jsonl").read_text() for run in (straight, stopped))
  assert first == second and "eval/loss" in expected
  assert (stopped / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_small_run_hardly_waits_for_its_data(tmp_path):
  command = [sys.executable, "-m", "motion_jax.main", f"--config={CONFIGS}/mosi.py"]
  command += [
    f"--workdir={tmp_path}",
    "--config.train.duration=24 steps",
    "--config.train.log_every=8",
    "--config.eval.probe=False",
    "--config.eval.linear=False",
  ]
  subprocess.run(command, cwd=ROOT, check=True)
  rows = logs.read_rows(tmp_path / "perf.jsonl")
  assert [row["step"] for row in rows] == [8, 16, 24]
  # Before the first step there is nothing to do but to wait.
  assert all(row["perf/data_wait"] < 0.05 for row in rows[1:])
