"""k-NN of a few videos during a pretraining: what it is of, what it finds and tells."""

import collections
import json

import numpy as np
import pytest
import tiny
import tiny_main
from test_config import CONFIGS, load

from motion_jax import logs, methods
from motion_jax.config import UserError
from motion_jax.data.inputs import Sources, configured_sources
from motion_jax.data.rows import Rows
from motion_jax.data.sources import Source
from motion_jax.data.subsets import few_of_both
from motion_jax.evaluation.features import Features
from motion_jax.evaluation.online import Online, make_online
from motion_jax.evaluation.retrieval import Retrieval
from motion_jax.scale import sharding
from motion_jax.train import train


def source(split, classes, of_each):
  names = tuple(f"c{label:03d}" for label in range(classes))
  labels = [label for label in range(classes) for _ in range(of_each)]
  ids = [f"{split}/{label}/{number}" for number, label in enumerate(labels)]
  return Source("videos", split, names, ids, labels)


@pytest.mark.parametrize(
  ("classes", "of_each", "expected"),
  [
    (400, 600, 32 * [8]),  # as many as Kinetics-400 has
    (10, 600, 10 * [25]),
    (10, 3, 10 * [3]),
    (2, 4, 2 * [4]),
  ],
)
def test_a_few_of_each_are_taken_of_the_same_classes(classes, of_each, expected):
  parts = source("train", classes, of_each), source("heldout", classes, of_each)
  train_part, heldout = few = few_of_both(*parts, 256)
  counts = [collections.Counter(part.labels) for part in few]
  assert counts[0] == counts[1] and sorted(counts[0].values()) == sorted(expected)
  assert all(part.classes == parts[0].classes for part in few)
  again = few_of_both(*parts, 256)
  assert [[*part.ids] for part in again] == [[*train_part.ids], [*heldout.ids]]
  if of_each > 25:
    other = few_of_both(*parts, 256, seed=1)
    assert not {*other[0].ids} >= {*train_part.ids}


def test_classes_of_one_part_alone_do_not_count():
  of_three, of_two = source("train", 3, 4), source("heldout", 2, 4)
  train_part, heldout = few_of_both(of_three, of_two, 256)
  assert {*train_part.labels} == {*heldout.labels} == {0, 1}
  with pytest.raises(UserError, match="1 classes are in both parts"):
    few_of_both(of_three, source("heldout", 1, 4), 256)


class Pictures(tiny_main.Pictures):
  """Has an encoder, which follows what is learned."""

  def encoder(self, params, aux):
    return tiny.Frozen.encoder(self, {"scale": params["kernel"][0, 0]}, aux)


@pytest.fixture
def config(monkeypatch):
  """Six steps, of which each third is measured."""
  monkeypatch.setitem(methods.METHODS, "mosi", Pictures)
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.train.best = ""
  config.train.duration, config.eval.every = "6 steps", "3 steps"
  config.eval.update(max_sources=8, probe=False, online_videos=12)
  return config


def test_neighbours_are_those_of_brute_force(config, tmp_path):
  sources = configured_sources(config.data)
  method, mesh = tiny.Frozen(config), sharding.make_mesh()
  online = Online(method, config, sources, mesh, tmp_path)
  rng = np.random.default_rng(0)
  train_part, heldout = (
    Features(rng.normal(size=(n, 4)), rng.integers(0, 3, n), np.arange(n))
    for n in (30, 20)
  )
  units = [
    f.features / np.linalg.norm(f.features, axis=1)[:, None]
    for f in (heldout, train_part)
  ]
  similarity = units[0] @ units[1].T
  nearest = np.argsort(-similarity)[:, :10]
  weight = np.exp(np.take_along_axis(similarity, nearest, 1) / 0.07)
  votes = np.stack(
    [(weight * (train_part.labels[nearest] == c)).sum(1) for c in range(3)]
  )
  found = online.scores(train_part, heldout)
  assert found == {
    "online_knn_top1": np.mean(votes.argmax(0) == heldout.labels),
    "online_retrieval_r1": pytest.approx(
      np.mean(train_part.labels[nearest[:, 0]] == heldout.labels)
    ),
  }


def test_an_encoder_that_is_not_finite_has_no_neighbours(config, tmp_path, caplog):
  sources = configured_sources(config.data)
  online = Online(tiny.Frozen(config), config, sources, sharding.make_mesh(), tmp_path)
  broken = Features(np.full((4, 2), np.nan), np.arange(4) % 2, np.arange(4))
  assert online.scores(broken, broken) == {}
  assert "no k-NN: 4 of 4" in caplog.text


def test_few_videos_are_decoded_and_damage_is_told_once(
  config, tmp_path, caplog, monkeypatch
):
  decoded, parts_of = [], Rows.parts

  def counted(self, index, rng):
    decoded.append(index)
    for rows in parts_of(self, index, rng):
      yield [{**row, "valid": np.bool_(index > 0)} for row in rows]

  monkeypatch.setattr(Rows, "parts", counted)
  sources = configured_sources(config.data)
  options = sources, sharding.make_mesh(), tmp_path
  retrieval = Retrieval(tiny.Frozen(config), config, *options)
  online = Online(tiny.Frozen(config), config, *options, like=retrieval)
  found = [online(*tiny.Frozen.TRAINED) for _ in range(2)]
  assert found[0] == found[1] and len(found[0]) == 4
  few = few_of_both(sources.train, sources.heldout, 12)
  assert len(decoded) == 2 * sum(map(len, few)) <= 48
  assert caplog.text.count("do not count") == 2  # of each part
  retrieval(*tiny.Frozen.TRAINED)
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {"random_init.json", "random_init_online.json"}


def test_without_labels_there_is_none_and_nothing_is_said(config, tmp_path, caplog):
  unlabelled = Source("videos", "train", None, ["a", "b"], [-1, -1])
  caplog.set_level("INFO")
  given = config, Sources(unlabelled, unlabelled), None, tmp_path, []
  assert make_online(tiny.Frozen(config), *given) == [] and not caplog.text
  one = Source("videos", "train", ("x",), ["a", "b"], [0, 0])
  given = config, Sources(one, one), None, tmp_path, []
  assert make_online(tiny.Frozen(config), *given) == []
  assert "1 classes are in both parts" in caplog.text
  config.eval.online_videos = -3
  with pytest.raises(UserError, match="online_videos=-3"):
    make_online(tiny.Frozen(config), *given)


@pytest.mark.slow
def test_a_training_is_measured_on_its_way_and_learns_the_same(
  config, tmp_path, caplog
):
  caplog.set_level("INFO")
  found = {}
  for name, videos in (("with", 12), ("without", 0)):
    config.eval.online_videos = videos
    train(config, tmp_path / name)
    found[name] = logs.read_rows(tmp_path / name / "metrics.jsonl")
  rows = [row for row in found["with"] if "eval/online_knn_top1" in row]
  assert [row["step"] for row in rows] == [3, 6]
  assert all("eval/random_init/online_retrieval_r1" in row for row in rows)
  assert [row for row in found["with"] if row not in rows] == found["without"]
  assert "step 3/6  eval/online_knn_top1 " in caplog.text
  (line,) = [x for x in caplog.text.splitlines() if x.startswith("  online_knn_top1")]
  assert "(untrained 0." in line and ", chance 0.500)" in line
  # Asked for at another start it is made up for, and nothing else is measured again.
  for name, videos in (("with", 0), ("without", 12)):
    config.eval.online_videos = videos
    train(config, tmp_path / name)
  assert logs.read_rows(tmp_path / "with" / "metrics.jsonl") == found["with"]
  again = logs.read_rows(tmp_path / "without" / "metrics.jsonl")
  assert again == [*found["without"], rows[-1]]
  # A row of random initialisation alone, as of an encoder that is not finite, is one.
  lone = {k: v for k, v in rows[-1].items() if not k.startswith("eval/online_")}
  path = tmp_path / "without" / "metrics.jsonl"
  lines = [json.dumps(row) for row in (*found["without"], lone)]
  path.write_text("\n".join(lines) + "\n")
  train(config, tmp_path / "without")
  assert logs.read_rows(path) == [*found["without"], lone]
