"""Runs of earlier versions, whose stored configs lack keys, go on and are of use."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny
import tiny_main
from test_config import CONFIGS, load

from motion_jax import config as config_module
from motion_jax import evaluate, load_encoder, methods, models
from motion_jax.config import UserError, completed, difference
from motion_jax.methods import make_method
from motion_jax.train import train
from motion_jax.training.checkpoint import Checkpoints

# Keys as if they had come since, with what they mean for older runs.
NEW = {"eval.crop_ratio": 0.875, "method.dropout": 0.0, "data.fps": 30.0}


def older(workdir, monkeypatch):
  """Makes checkpoints such as were written before there were the keys of NEW."""
  for name, value in NEW.items():
    monkeypatch.setitem(config_module.ADDED, name, value)
  for path in workdir.glob("checkpoints/*/config/metadata"):
    config = json.loads(path.read_text())
    for name in config_module.ADDED:
      section, _, key = name.partition(".")
      config.get(section, {}).pop(key, None)
    path.write_text(json.dumps(config))


def smoke(pictures, **overrides):
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  values = {"data.name": "folder", "data.path": str(pictures), "eval.probe": False}
  config.update_from_flattened_dict({**values, **overrides})
  return config


@pytest.mark.slow
def test_an_older_run_goes_on_by_the_command_that_began_it(
  pictures, tmp_path, monkeypatch, caplog
):
  monkeypatch.setitem(methods.METHODS, "mosi", tiny_main.Pictures)
  options = {"train.best": "", "train.checkpoint_every": "1 steps"}
  train(smoke(pictures, **options), tmp_path)
  older(tmp_path, monkeypatch)
  shutil.rmtree(tmp_path / "checkpoints" / "3")
  options["data.heldout_by"] = "file"  # the default was another one
  with pytest.raises(UserError, match=r"data\.fps: 30\.0 -> 15\.0"):
    train(smoke(pictures, **options, **{"data.fps": 15.0}), tmp_path)
  caplog.set_level("INFO")
  assert train(smoke(pictures, **options), tmp_path).keys() >= {"eval/loss"}
  assert "resumed at step 2" in caplog.text


@pytest.mark.slow
def test_an_older_run_is_loaded_and_evaluated_as_it_was_trained(
  pictures, tmp_path, monkeypatch
):
  monkeypatch.setattr(models, "build_model", tiny.build_model)
  config, video = smoke(pictures), np.ones((2, 4, 32, 32, 3), np.float32)
  params, aux = jax.jit(make_method(config).init)(jax.random.key(5))
  key = jax.random.key(6)  # else those of any network that has not been trained
  stats = jax.tree.map(lambda x: x + jax.random.uniform(key, x.shape), aux["stats"])
  Checkpoints(tmp_path).save_weights(params, stats, config.to_dict())
  encoded = load_encoder(tmp_path)(video)
  older(tmp_path, monkeypatch)
  np.testing.assert_array_equal(load_encoder(tmp_path)(video), encoded)
  values = evaluate.evaluate(config, tmp_path)
  evaluation = load(CONFIGS / "evaluate.py").get_config("smoke")
  evaluation.init_from = str(tmp_path)
  assert evaluate.evaluate(evaluation, tmp_path / "result") == values


def test_both_configs_are_completed_where_they_are_compared(monkeypatch):
  monkeypatch.setitem(config_module.ADDED, "a.new", 1)
  monkeypatch.setitem(config_module.ADDED, "b.new", 1)
  stored, current = {"a": {"x": 0}}, {"a": {"x": 0, "new": 1}}
  assert completed(stored) == current
  assert stored == {"a": {"x": 0}}
  assert not difference(completed(current), completed(stored))
  assert difference(completed(stored), {"a": {"x": 0, "new": 2}}) == ["a.new: 1 -> 2"]


def test_keys_that_are_gone_are_left_out(monkeypatch):
  gone = {"a.old": "", "b": "", "c.old": "", "method.size": "mas"}
  monkeypatch.setattr(config_module, "GONE", gone)
  monkeypatch.setattr(config_module, "ADDED", {})
  stored, current = {"a": {"x": 0, "old": 1}, "b": {"y": 1}}, {"a": {"x": 0}}
  assert completed(stored) == completed(current) == current
  assert stored == {"a": {"x": 0, "old": 1}, "b": {"y": 1}}
  mosi, mas = ({"method": {"name": name, "size": 1}} for name in ("mosi", "mas"))
  assert (completed(mosi), completed(mas)) == (mosi, {"method": {"name": "mas"}})


FIRST = json.loads((CONFIGS.parent / "tests/golden/first_keys.json").read_text())


@pytest.mark.parametrize("name", sorted(FIRST))
def test_every_new_key_of_a_config_says_what_it_means_for_older_runs(name):
  """`golden/first_keys.json` has those of the first runs; it never gets longer."""
  module, keys = load(CONFIGS / f"{name}.py"), set()
  for word in module.WORDS:
    for section, values in module.get_config(word).to_dict().items():
      nested = values if isinstance(values, dict) else ()
      keys |= {f"{section}.{key}" for key in nested} or {section}
  assert keys - {*FIRST[name]} <= config_module.ADDED.keys()


def test_clips_of_segments_are_of_the_method_now():
  stored = {"data": {"sampler": "segments"}, "method": {"name": "classify"}}
  found = completed(stored)
  assert found["method"]["segments"] is True and "sampler" not in found["data"]
