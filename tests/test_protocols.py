"""ASLAN and YUPENN end to end, on generated sets whose answer is known."""

import dataclasses
import json
import pathlib
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import paper_sets
import pytest
import scipy.io
import tiny
from flax import nnx
from ml_collections import ConfigDict
from test_config import CONFIGS, load

from motion_jax import main, prepare
from motion_jax.config import UserError
from motion_jax.data import open_source
from motion_jax.data.builders import aslan, encoding, yupenn
from motion_jax.data.clips import Views
from motion_jax.downstream import protocols

PAIRS = 20  # of each of the ten folds


def _texture(path, seed, noise=0):
  """Eight frames of a coarse pattern that moves; equal seeds look alike."""
  path.parent.mkdir(parents=True, exist_ok=True)
  coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
  picture = cv2.resize(coarse, (60, 48))
  grain = np.random.default_rng(noise).integers(0, 6, picture.shape, np.uint8)
  picture = cv2.add(picture, grain * bool(noise))
  frames = [np.roll(picture, step * (seed % 5), axis=1) for step in range(8)]
  path.write_bytes(encoding.encode_mp4(frames, 25.0))


@pytest.fixture(scope="module")
def same_or_not(tmp_path_factory):
  """An ASLAN of 20 actions; the two videos of an action are the same."""
  root = tmp_path_factory.mktemp("aslan")
  options = paper_sets.options_for(root)
  for number in range(40):
    _texture(pathlib.Path(options["source"], f"{number + 1:04d}.mp4"), number // 2)
  rng = np.random.default_rng(0)
  table = np.zeros((PAIRS, 5, aslan.FOLDS))
  for fold in range(aslan.FOLDS):
    for row in range(PAIRS):
      one, other = rng.choice(20, 2, replace=False)
      same = row % 2
      second = 2 * one + 2 if same else 2 * other + 1
      actions = (one + 1, (one if same else other) + 1)
      table[row, :, fold] = (2 * one + 1, second, same, *actions)
  scipy.io.savemat(f"{options['splits']}/View2.mat", {"action_splits_pairs": table})
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(aslan, "PAIRS", PAIRS)
    prepare.prepare("aslan", **options)
  return options["data_dir"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  """A YUPENN of four scenes of five videos, which differ by their grain alone."""
  options = paper_sets.options_for(tmp_path_factory.mktemp("yupenn"))
  for scene in range(4):
    for number in range(5):
      path = pathlib.Path(options["source"], f"scene{scene}", f"{number}.mp4")
      _texture(path, seed=scene, noise=1 + 5 * scene + number)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(yupenn, "CLASSES", 4)
    patch.setattr(yupenn, "VIDEOS", 5)
    prepare.prepare("yupenn", **options | {"splits": ""})
  return options["data_dir"]


@pytest.fixture(scope="module")
def encoder():
  module = tiny.Encoder(rngs=nnx.Rngs(0))
  module.eval()
  return {"": module}


CONFIG = ConfigDict(
  dict(
    method=dict(frames=4, size=32, mean=(0.45,) * 3, std=(0.225,) * 3),
    data=dict(interval=1, fps=0.0, short_side=40, canvas=(40, 72), threads=2),
    eval=dict(clips=10, crop_ratio=0.875, batch_size=16),
  )
)


def test_pairs_of_equal_videos_are_all_told_from_others(same_or_not, encoder):
  source = open_source("aslan", split="all", data_dir=same_or_not)
  values = protocols.measure("aslan", encoder, CONFIG, source)
  assert values == {
    "eval/aslan_accuracy": 1.0,
    "eval/aslan_accuracy_error": 0.0,
    "eval/aslan_auc": 1.0,
  }


def test_pairs_with_shuffled_answers_are_at_chance(same_or_not, encoder):
  source = open_source("aslan", split="all", data_dir=same_or_not)
  pairs = source.notes["pairs"]
  answers = np.random.default_rng(0).permutation([pair[2] for pair in pairs])
  shuffled = [
    [one, other, int(same), fold]
    for (one, other, _, fold), same in zip(pairs, answers, strict=True)
  ]
  source = dataclasses.replace(source, notes={"pairs": shuffled})
  values = protocols.measure("aslan", encoder, CONFIG, source)
  # The standard deviation of 200 fair guesses is 0.035.
  assert 0.36 < values["eval/aslan_accuracy"] < 0.64
  assert 0.36 < values["eval/aslan_auc"] < 0.64


def test_pairs_of_a_damaged_video_do_not_count(same_or_not, encoder, caplog):
  source = open_source("aslan", split="all", data_dir=same_or_not)
  lost = source.ids[0]
  source = _WithDamage(source, 0)
  count = sum(lost in pair[:2] for pair in source.notes["pairs"])
  with caplog.at_level("WARNING", "motion_jax"):
    values = protocols.measure("aslan", encoder, CONFIG, source)
  assert values["eval/aslan_accuracy"] == 1
  assert f"{200 - count} of 200 pairs count" in caplog.text
  assert f"1 videos do not count: damaged: {lost}" in caplog.text


class _WithDamage:
  """A source of which one record cannot be decoded."""

  def __init__(self, source, bad):
    self._source, self._bad = source, bad

  def __len__(self):
    return len(self._source)

  def __getattr__(self, name):
    return getattr(self._source, name)

  def __getitem__(self, index):
    record = self._source[index]
    is_bad = index == self._bad
    return dataclasses.replace(record, media=b"damaged") if is_bad else record


def test_scenes_that_look_alike_are_all_named(scenes, encoder):
  source = open_source("yupenn", split="all", data_dir=scenes)
  assert protocols.measure("yupenn", encoder, CONFIG, source) == {
    "eval/yupenn_accuracy": 1.0
  }


def test_scenes_with_shuffled_names_are_at_chance(scenes, encoder):
  source = open_source("yupenn", split="all", data_dir=scenes)
  labels = np.random.default_rng(0).permutation(source.labels).tolist()
  source = dataclasses.replace(source, labels=labels)
  values = protocols.measure("yupenn", encoder, CONFIG, source)
  assert values["eval/yupenn_accuracy"] < 0.55  # chance 0.25, deviation 0.1


def test_data_and_encoders_that_do_not_fit_are_explained(scenes, encoder):
  source = open_source("yupenn", split="all", data_dir=scenes)
  with pytest.raises(UserError, match="holds no pairs"):
    protocols.measure("aslan", encoder, CONFIG, source)
  with pytest.raises(UserError, match="yupenn"):
    protocols.measure("yupen", encoder, CONFIG, source)


def test_clips_share_half_their_frames_with_the_next(scenes):
  source = open_source("yupenn", split="all", data_dir=scenes)
  options = dict(fps=0.0, short_side=40, canvas=(40, 50))
  half = Views(0, 4, 1, overlap=0.5, **options)(source[1], np.random.default_rng(0))
  apart = Views(0, 4, 1, **options)(source[1], np.random.default_rng(0))
  video = half["video"]  # 8 frames: clips from 0, 2 and 4
  assert video.shape[0] == 3 and apart["video"].shape[0] == 2
  np.testing.assert_array_equal(video[0, 2:], video[1, :2])
  np.testing.assert_array_equal(video[[0, 2]], apart["video"])
  with pytest.raises(UserError, match="overlap by 1"):
    Views(0, 4, 1, overlap=1.0, **options)


def _config(word, data_dir, init_from="run"):
  config = load(CONFIGS / "evaluate.py").get_config(word)
  config.data.data_dir, config.init_from = data_dir, init_from
  return config


def test_a_run_is_measured_beside_random_initialisation(
  scenes, encoder, tmp_path, monkeypatch
):
  stored = CONFIG.copy_and_resolve_references()
  trained = types.SimpleNamespace(module=encoder[""], config=stored, step=7)
  monkeypatch.setattr(protocols, "load_encoder", lambda path: trained)
  monkeypatch.setattr(protocols, "random_encoder", _silent)
  config = _config("yupenn", scenes)
  config.data.interval, config.eval.batch_size = 2, 8
  values = main.MODES[config.mode](config, tmp_path / "out")
  assert values["eval/yupenn_accuracy"] == 1
  assert values["eval/random_init/yupenn_accuracy"] < 0.55  # its features are all zero
  written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
  assert written == {"init_from": "run", "step": 7, **values}
  assert (stored.data.interval, stored.eval.batch_size) == (2, 8)


def _silent(config):
  """An encoder of the same structure that tells nothing."""
  module = tiny.Encoder(rngs=nnx.Rngs(1))
  nnx.update(module, jax.tree.map(jnp.zeros_like, nnx.state(module)))
  module.eval()
  return module


def test_what_is_missing_is_told_before_anything_is_decoded(scenes, tmp_path):
  for config, message in (
    (_config("yupenn", scenes, init_from=""), "--config.init_from=runs/NAME"),
    (_config("yupenn", scenes, init_from="/nowhere"), "no checkpoint in /nowhere"),
    (_config("aslan", str(tmp_path)), "aslan is not prepared"),
  ):
    with pytest.raises(UserError, match=message):
      protocols.evaluate_protocol(config, tmp_path / "out")
  assert not (tmp_path / "out").exists()
