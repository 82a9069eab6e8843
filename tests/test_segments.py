"""Segments of a video, and the recipe for Something-Something V2 that samples them."""

import io
import pickle

import media_files
import numpy as np
import pytest
from test_config import CONFIGS, load

from motion_jax.config import UserError
from motion_jax.data.clips import Segments, segment_indices
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.inputs import (
  feature_views,
  test_views,
)
from motion_jax.data.sources import Record
from motion_jax.methods import make_method

test_views.__test__ = False
_SIZE = {"short_side": 48, "canvas": (48, 96)}


def _record(count):
  buffer = io.BytesIO()
  media_files.write_video(buffer, count, file_format="mp4")
  return Record("x", "video", buffer.getvalue())


def _numbers(sample):
  return [media_files.number_of(frame) for frame in sample["video"]]


@pytest.mark.parametrize("length", [1, 5, 16, 17, 45, 300])
@pytest.mark.parametrize("segments", [8, 16])
def test_every_frame_is_of_its_segment_and_all_of_them_are_drawn(length, segments):
  rng = np.random.default_rng(0)
  draws = rng.random((400, segments))
  found = np.array([segment_indices(length, segments, draw) for draw in draws])
  size = (length - 1) / segments
  for number in range(segments):
    first, last = round(size * number), round(size * (number + 1))
    seen = set(found[:, number].tolist())
    assert seen == set(range(first, last + 1))
    assert segment_indices(length, segments)[number] == (first + last) // 2
  assert (np.diff(found, axis=1) >= 0).all()
  latest = segment_indices(length, segments, np.full(segments, 1 - 1e-12))
  assert latest[-1] == length - 1 and found.max() == length - 1


def test_a_test_takes_the_middle_frames_whatever_the_seed():
  sampler = Segments(4, middle=True, **_SIZE)
  record = _record(41)
  for seed in (0, 1):
    sample = sampler(record, np.random.default_rng(seed))
    assert _numbers(sample) == [5, 15, 25, 35]
  assert sample["extent"].tolist() == [48, 96]


def test_training_takes_other_frames_of_the_same_segments():
  sampler = pickle.loads(pickle.dumps(Segments(4, **_SIZE)))
  record = _record(41)
  found = {
    tuple(_numbers(sampler(record, np.random.default_rng(seed)))) for seed in range(6)
  }
  assert len(found) == 6
  for numbers in found:
    for part, number in enumerate(numbers):
      assert 10 * part <= number <= 10 * part + 10
  assert sampler.empty()["video"].shape == (4, 48, 96, 3)


def test_a_video_shorter_than_its_segments_repeats_frames():
  sample = Segments(8, middle=True, **_SIZE)(_record(3), np.random.default_rng(0))
  numbers = _numbers(sample)
  assert numbers == sorted(numbers) and set(numbers) == {0, 1, 2}


def _config(word="something_something_v2"):
  return load(CONFIGS / "finetune.py").get_config(word)


class _Videos:
  name, split, classes, labels = "x", "heldout", ("a", "b"), (0, 1, 1)

  def __len__(self):
    return 3

  def __getitem__(self, index):
    return _record(20 + index)

  def id_of(self, index):
    return str(index)


def test_samplers_of_the_recipe_give_one_clip_per_video():
  config = _config()
  config.data.short_side, config.data.canvas = 48, (48, 96)
  config.method.frames, config.method.size = 4, 32
  config.method.classes = 2
  method = make_method(config)
  assert not method.sampler("train").middle
  assert method.sampler("heldout").middle
  for sampler in (test_views(config), feature_views(config)):
    (rows,) = evaluation_batches(_Videos(), sampler, batch_size=4, seed=0)
    assert rows["index"].tolist() == [0, 1, 2, -1]
    assert rows["video"].shape[:2] == (4, 4) and rows["valid"].sum() == 3
  config.eval.clips = 10
  with pytest.raises(UserError, match=r"eval.clips is 10; set it to 1"):
    test_views(config)


def test_the_recipe_is_that_of_the_paper():
  for word in ("something_something_v2", "something_something_v2,linear"):
    config = _config(word)
    assert (config.model.name, config.method.frames, config.method.size) == (
      ("r3d_50", 16, 224)
    )
    assert config.method.segments and config.method.flip == 0
    optim = config.optim
    assert (optim.name, optim.learning_rate) == ("sgd", 0.03)
    assert tuple(optim.drops) == ("14 epochs", "18 epochs")
    assert (optim.warmup, optim.warmup_start) == ("0.19 epochs", 1e-4)
    assert (config.train.duration, config.train.batch_size) == ("22 epochs", 16)
    assert (config.eval.clips, config.eval.crops, config.eval.size) == (1, 1, 256)
  assert config.method.frozen_stages == 5
  config.method.classes = 174
  make_method(config)
  other = _config("something_something_v2,recipe=mosi")
  assert other.model.name == "r2d3d_18" and other.optim.name == "adam"
  assert other.method.segments and other.method.flip == 0
