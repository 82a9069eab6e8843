"""Leaving one group of videos out: no video meets others of its group."""

import media_files
import numpy as np
import pytest
import tiny
from conftest import ROOT
from test_config import load

from motion_jax.config import UserError
from motion_jax.data import open_source
from motion_jax.data.inputs import Sources
from motion_jax.evaluate import with_changes
from motion_jax.evaluation import groups
from motion_jax.evaluation.features import Features
from motion_jax.evaluation.measures import linear
from motion_jax.evaluation.retrieval import Retrieval
from motion_jax.scale import sharding

PERSONS = ("ann", "bob", "cid", "dan", "eve")
RULE = "/([a-z]+)_"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  """Two actions by five persons."""
  folder = tmp_path_factory.mktemp("videos")
  for action in ("run", "wave"):
    (folder / action).mkdir()
    for person in PERSONS:
      media_files.write_video(folder / action / f"{person}_{action}.mp4", 4)
  return folder


def names(folder, rule):
  return groups.groups_of(open_source(folder, split="all"), rule).tolist()


def test_a_group_is_what_the_rule_finds(videos):
  assert names(videos, RULE) == [*PERSONS] * 2
  assert names(videos, "^[a-z]+") == ["run"] * 5 + ["wave"] * 5  # no parentheses


@pytest.mark.parametrize(
  ("rule", "message"),
  [("(", "no regular expression"), ("ann|bob", "6 of 10 .* as 'run/cid_run.mp4'")],
)
def test_a_rule_that_does_not_serve_is_told(videos, rule, message):
  with pytest.raises(UserError, match=message):
    names(videos, rule)


def evaluator(folder, workdir, rule, **options):
  """A `Retrieval` of both parts of a folder, and what it is asked."""
  config = load(ROOT / "configs" / "mosi.py").get_config("smoke")
  config.update_from_flattened_dict({f"eval.{k}": v for k, v in options.items()})
  with config.unlocked():
    config.eval.groups = rule
  halves = Sources(
    *(open_source(folder, split=s, heldout_fraction=0.4) for s in ("train", "test"))
  )
  mesh = sharding.make_mesh()
  return Retrieval(tiny.Frozen(config), config, halves, mesh, workdir), halves


def drawn(source, seed):
  """Features in which a video is nearest to the other one of its person.

  The second video is damaged: features are of the others.
  """
  rng = np.random.default_rng(seed)
  persons = [PERSONS.index(name) for name in groups.groups_of(source, RULE)]
  own = 3 * np.eye(5, 8)[persons]
  labels = np.asarray(source.labels, np.int32)
  features = own + np.eye(8)[5 + labels] + 0.5 * rng.normal(size=own.shape)
  whole = np.delete(np.arange(len(source)), 1)
  return Features(features[whole].astype(np.float32), labels[whole], whole)


def test_every_video_is_compared_with_those_of_other_groups_only(videos, tmp_path):
  found, halves = evaluator(videos, tmp_path, RULE)
  parts = drawn(halves.train, 0), drawn(halves.heldout, 1)
  values = found.scores(*parts)
  features = np.concatenate([part.features for part in parts]).astype(np.float64)
  labels = np.concatenate([part.labels for part in parts])
  persons = np.concatenate(
    [
      groups.groups_of(source, RULE)[part.positions]
      for source, part in zip((halves.train, halves.heldout), parts, strict=True)
    ]
  )
  assert len(persons) == 8
  units = features / np.linalg.norm(features, axis=1, keepdims=True)
  similarity = units @ units.T
  nearest = (similarity - 2 * np.eye(8)).argmax(1)
  pairs = (persons[:, None] == persons).sum(1) == 2
  assert pairs.any() and (persons[nearest] == persons)[pairs].all()  # always wrong
  similarity[persons[:, None] == persons] = -2
  right = labels[similarity.argmax(1)] == labels
  assert values["retrieval_r1"] == pytest.approx(right.mean()) and right.any()
  hits = []
  for person in np.unique(persons):
    out = persons == person
    args = features[~out], labels[~out], features[out], labels[out]
    hits.append(linear.linear_accuracy(*args)["top1"])
  counts = np.unique(persons, return_counts=True)[1]
  assert values["linear_top1"] == pytest.approx(np.average(hits, weights=counts))


def test_groups_count_by_their_videos():
  sizes = {"a": 1, "b": 3}

  def scores(out):
    return {"x": 1.0, "y": 0.5} if out.sum() == 1 else {"x": 0.0}

  found = groups.without_each(np.repeat([*sizes], [*sizes.values()]), scores)
  assert found == {"x": 0.25}  # y is missing for b


def test_one_group_cannot_be_left_out(videos, tmp_path):
  with pytest.raises(UserError, match=r"finds one group, '\.mp4'"):
    evaluator(videos, tmp_path, ".mp4")


def test_groups_that_are_the_classes_cannot_be_left_out(videos, tmp_path):
  with pytest.raises(UserError, match="2 groups, as 'run', and no class has videos"):
    evaluator(videos, tmp_path, "^([a-z]+)")


def test_a_class_of_a_single_group_is_told_once(videos, tmp_path, caplog):
  # All who wave are one group, and those who run are others.
  found, halves = evaluator(videos, tmp_path, "(wave|run/[a-z]+)")
  values = found.scores(drawn(halves.train, 0), drawn(halves.heldout, 1))
  assert "retrieval_r1" in values and "linear_top1" not in values
  (line,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
  assert "retrieval_centred_r1" not in values
  assert line == (
    "the videos of 1 of 2 classes lie in a single group each and are never right, and "
    "there is no linear_top1: wave"
  )


def test_limits_of_a_run_are_not_those_of_other_data():
  for recipe in ("mosi.py", "modist.py"):
    word = {"mosi.py": None, "modist.py": "kinetics400"}[recipe]
    stored = load(ROOT / "configs" / recipe).get_config(word).to_dict()
    asked = load(ROOT / "configs" / "evaluate.py").get_config()
    own = with_changes(stored, asked)[0].eval
    assert own.max_videos == stored["eval"]["max_videos"] > 0
    asked.data.name = "hmdb51"
    other = with_changes(stored, asked)[0].eval
    assert (other.max_videos, other.linear) == (0, True)
    asked.eval.max_videos, asked.eval.linear = 7, False
    other = with_changes(stored, asked)[0].eval
    assert (other.max_videos, other.linear) == (7, False)


def test_all_videos_ask_where_groups_are_left_out():
  stored = load(ROOT / "configs" / "mosi.py").get_config().to_dict()
  asked = load(ROOT / "configs" / "evaluate.py").get_config()
  few = stored["eval"]["max_videos"]
  assert few and with_changes(stored, asked)[0].eval.max_videos == few
  asked.eval.groups = RULE
  assert with_changes(stored, asked)[0].eval.max_videos == 0
  asked.eval.max_videos = 7
  assert with_changes(stored, asked)[0].eval.max_videos == 7
