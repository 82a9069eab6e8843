"""ASLAN and YUPENN end to end, on generated sets whose answer is known."""

import dataclasses
import json
import pathlib
import tempfile

import cv2
import numpy as np
import paper_sets
import pytest
import scipy.io
import tiny
from ml_collections import ConfigDict
from test_config import CONFIGS, load

from motion_jax import main, methods, prepare
from motion_jax.config import UserError
from motion_jax.data import open_source
from motion_jax.data.builders import aslan, encoding, yupenn
from motion_jax.data.clips import Views
from motion_jax.evaluation.features import FeatureExtractor
from motion_jax.evaluation.protocols import Aslan, Yupenn
from motion_jax.scale import sharding
from motion_jax.training.checkpoint import Checkpoints

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


CONFIG = ConfigDict(
  dict(
    method=dict(frames=4, size=32, mean=(0.45,) * 3, std=(0.225,) * 3),
    data=dict(interval=1, fps=0.0, short_side=40, canvas=(40, 72), threads=2),
    eval=dict(clips=10, crop_ratio=0.875, batch_size=16),
    seed=0,
  )
)


def measure(protocol, source):
  """What the protocol finds of random weights, beside an encoder that says nothing."""
  method, mesh = tiny.Frozen(CONFIG), sharding.make_mesh()
  with tempfile.TemporaryDirectory() as workdir:
    evaluator = protocol(method, CONFIG, source, mesh, pathlib.Path(workdir))
    values = evaluator(*tiny.Frozen.TRAINED)
  return {name: x for name, x in values.items() if "random_init" not in name}


def test_pairs_of_equal_videos_are_all_told_from_others(same_or_not):
  source = open_source("aslan", split="all", data_dir=same_or_not)
  values = measure(Aslan, source)
  assert values == {
    "eval/aslan_accuracy": 1.0,
    "eval/aslan_accuracy_error": 0.0,
    "eval/aslan_auc": 1.0,
  }


def test_pairs_with_shuffled_answers_are_at_chance(same_or_not):
  source = open_source("aslan", split="all", data_dir=same_or_not)
  pairs = source.notes["pairs"]
  answers = np.random.default_rng(0).permutation([pair[2] for pair in pairs])
  shuffled = [
    [one, other, int(same), fold]
    for (one, other, _, fold), same in zip(pairs, answers, strict=True)
  ]
  source = dataclasses.replace(source, notes={"pairs": shuffled})
  values = measure(Aslan, source)
  # The standard deviation of 200 fair guesses is 0.035.
  assert 0.36 < values["eval/aslan_accuracy"] < 0.64
  assert 0.36 < values["eval/aslan_auc"] < 0.64


def test_pairs_of_a_damaged_video_do_not_count(same_or_not, caplog):
  source = open_source("aslan", split="all", data_dir=same_or_not)
  lost = source.ids[0]
  source = _WithDamage(source, 0)
  count = sum(lost in pair[:2] for pair in source.notes["pairs"])
  with caplog.at_level("WARNING", "motion_jax"):
    values = measure(Aslan, source)
  assert values["eval/aslan_accuracy"] == 1
  assert f"{200 - count} of 200 pairs count" in caplog.text
  assert f"1 of 40 aslan videos do not count: damaged: {lost}" in caplog.text


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


def test_scenes_that_look_alike_are_all_named(scenes):
  source = open_source("yupenn", split="all", data_dir=scenes)
  assert measure(Yupenn, source) == {"eval/yupenn_accuracy": 1.0}


def test_random_initialisation_is_measured_once_over_all_starts_of_a_run(
  scenes, tmp_path, monkeypatch
):
  source = open_source("yupenn", split="all", data_dir=scenes)
  extract, encoders = FeatureExtractor.__call__, []

  def counted(self, modules, *args, **options):
    encoders.append(len(modules))
    return extract(self, modules, *args, **options)

  monkeypatch.setattr(FeatureExtractor, "__call__", counted)
  found = []
  for interval in (1, 1, 2):  # the last is another measurement
    config = CONFIG.copy_and_resolve_references()
    config.data.interval = interval
    method, mesh = tiny.Frozen(config), sharding.make_mesh()
    evaluator = Yupenn(method, config, source, mesh, tmp_path)
    found.append(evaluator(*tiny.Frozen.TRAINED))
  assert encoders == [2, 1, 2]
  assert found[0] == found[1] and "eval/random_init/yupenn_accuracy" in found[1]


def test_scenes_with_shuffled_names_are_at_chance(scenes):
  source = open_source("yupenn", split="all", data_dir=scenes)
  labels = np.random.default_rng(0).permutation(source.labels).tolist()
  source = dataclasses.replace(source, labels=labels)
  values = measure(Yupenn, source)
  assert values["eval/yupenn_accuracy"] < 0.55  # chance 0.25, deviation 0.1


def test_data_and_encoders_that_do_not_fit_are_explained(scenes):
  source = open_source("yupenn", split="all", data_dir=scenes)
  with pytest.raises(UserError, match="holds no pairs"):
    measure(Aslan, source)


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


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A run that has learned, and how it is evaluated: config argument and sources."""
  monkeypatch.setitem(methods.METHODS, "mosi", tiny.Frozen)
  stored = load(CONFIGS / "mosi.py").get_config("smoke")
  for section in ("method", "data"):
    stored[section].update(CONFIG[section])
  Checkpoints(tmp_path / "run").save_weights(*tiny.Frozen.TRAINED, stored.to_dict())
  return str(tmp_path / "run")


def evaluated(word, data_dir, init_from, out, **options):
  config = load(CONFIGS / "evaluate.py").get_config(word)
  config.data.data_dir, config.init_from = data_dir, init_from
  config.update_from_flattened_dict(options)
  return main.MODES[config.mode](config, out)


def test_a_run_is_measured_beside_random_initialisation(scenes, run, tmp_path):
  out, options = tmp_path / "out", {"data.interval": 2, "eval.batch_size": 8}
  values = evaluated("yupenn", scenes, run, out, **options)
  assert values["eval/yupenn_accuracy"] == 1
  assert values["eval/random_init/yupenn_accuracy"] < 0.55  # its features are all zero
  written = json.loads((out / "evaluation.json").read_text())
  data = {"name": "yupenn", "data_dir": scenes, "interval": 2}
  about = {"init_from": run, "step": 0, "data": data, "batch_size": 8}
  assert written == about | values


def test_what_is_missing_is_told_before_anything_is_decoded(scenes, run, tmp_path):
  out = tmp_path / "out"
  for word, data_dir, init_from, message in (
    ("yupenn", scenes, "", "--config.init_from=runs/NAME"),
    ("yupenn", scenes, "/nowhere", "no checkpoint in /nowhere"),
    ("aslan", str(tmp_path), run, "aslan is not prepared"),
  ):
    with pytest.raises(UserError, match=message):
      evaluated(word, data_dir, init_from, out)
  with pytest.raises(UserError, match="yupenn"):
    evaluated("yupenn", scenes, run, out, protocol="yupen")
  assert not out.exists()
