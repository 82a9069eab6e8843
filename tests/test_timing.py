"""Times of a step and its stages, on a method that compiles in a second."""

import os
import time
import types

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from test_config import CONFIGS, load
from tiny_benchmark import Colours

from motion_jax import methods
from motion_jax.costs import roofline, timing

PIXELS = 8 * 96 * 96 * 3  # of a batch
LIMITS = roofline.Peak(teraflops=2, gigabytes=100)


@pytest.fixture
def measured(monkeypatch):
  """Measures a step of 8 pictures of 96 x 96, in a number of parts."""
  monkeypatch.setitem(methods.METHODS, "mosi", Colours)

  def measure(parts=1):
    config = load(CONFIGS / "mosi.py").get_config("smoke")
    config.train.accumulate_steps = parts
    return timing.measure(config, 3, limits=LIMITS)

  return measure


def test_a_step_has_its_times_its_memory_and_its_share_of_the_peak(measured):
  began = time.monotonic()
  found = measured()
  wall = time.monotonic() - began
  low, high = found["step_seconds_min_max"]
  assert 0 < low <= found["step_seconds"] <= high < wall
  assert found["clips_per_second"] == pytest.approx(8 / found["step_seconds"])
  assert 0.01 < found["compile_seconds"] < wall
  assert PIXELS <= found["teraflops_per_step"] * 1e12 < 1.1 * PIXELS
  rate = found["teraflops_per_step"] / found["step_seconds"]
  assert found["teraflops_per_second"] == pytest.approx(rate)
  assert found["share_of_peak"] == pytest.approx(rate / 2)
  assert PIXELS < found["memory_gigabytes"] * 1e9 < 10 * PIXELS  # uint8 and float32
  assert found["gigabytes_compiled"] * 1e9 > PIXELS
  assert found["stage_shares"]["colours"] > 0.9


def test_stages_are_measured_alone_and_the_rest_by_difference(measured):
  found = measured()
  seconds, rest = found["stage_seconds"], found["stage_seconds_by_difference"]
  assert set(seconds) == {"pretext", "loss", "update"}
  assert min(seconds.values()) > 0
  assert rest["forward"] == pytest.approx(seconds["loss"] - seconds["pretext"])
  share = seconds["pretext"] / found["step_seconds"]
  assert found["pretext_share"] == pytest.approx(share)


def test_a_step_in_four_parts_does_the_same_work(measured):
  whole, parts = measured(), measured(parts=4)
  same = pytest.approx(whole["teraflops_per_step"], rel=0.05)
  assert parts["teraflops_per_step"] == same
  # Which the compiler's count, of one turn of the loop, is not.
  assert parts["teraflops_compiled"] < 0.5 * whole["teraflops_compiled"]


def test_stages_of_a_part_count_once_per_part(monkeypatch):
  monkeypatch.setattr(timing, "_seconds", lambda run, steps: [2.0])
  method = types.SimpleNamespace(pretext=abs, loss=abs)
  parts = types.SimpleNamespace(method=method, optimizer=None)
  current = types.SimpleNamespace(params=None, aux=None, step=None)
  found = timing._stage_seconds(parts, None, current, None, 4, None, 3)
  assert found == {"pretext": 8.0, "loss": 8.0, "update": 2.0}


def test_without_the_cache_everything_is_compiled(tmp_path):
  events = []

  def listen(event, **_):
    events.append(event.rpartition("/")[2])

  def compile_it(cached):
    def chain(x):
      return lax.fori_loop(0, 3, lambda _, y: jnp.sin(y @ y), x)

    events.clear()
    lowered = jax.jit(chain).lower(jax.ShapeDtypeStruct((3, 3), jnp.float32))
    if cached:
      lowered.compile()
    else:
      with timing.without_cache():
        lowered.compile()
    return [event for event in events if event in ("cache_hits", "cache_misses")]

  names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  before = [getattr(jax.config, name) for name in names]
  jax.monitoring.register_event_listener(listen)
  try:
    for name, value in zip(names, (str(tmp_path), 0.0), strict=True):
      jax.config.update(name, value)
    timing.compilation_cache.reset_cache()
    assert compile_it(cached=True) == ["cache_misses"]
    assert compile_it(cached=True) == ["cache_hits"]
    files = os.listdir(tmp_path)
    assert compile_it(cached=False) == []
    assert compile_it(cached=True) == ["cache_hits"]
    assert len(os.listdir(tmp_path)) == len(files)
  finally:
    jax.monitoring.unregister_event_listener(listen)
    for name, value in zip(names, before, strict=True):
      jax.config.update(name, value)
    timing.compilation_cache.reset_cache()
