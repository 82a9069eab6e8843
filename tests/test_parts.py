"""What passes leave for another start: whose it is, who loads it, who removes it."""

import dataclasses
import pickle
import shutil
import tracemalloc

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from motion_jax.data.sources import Source
from motion_jax.evaluation import parts
from motion_jax.evaluation.parts import UNFINISHED, Parts, remove_unfinished
from motion_jax.scale import hosts

WEIGHTS = [np.ones(3, np.float32)]
SOURCE = Source("/data/videos", "train", None, [f"{n}.mp4" for n in range(9)], [-1] * 9)
DATA = dict(name="folder", path="", data_dir="", train_list="", interval=1, threads=1)
HAVE_IT_ELSEWHERE = dict(path="/b", data_dir="/b", train_list="/b.txt")


def kept(folder, source=SOURCE, weights=WEIGHTS, **changes):
  config = ConfigDict({"data": {**DATA, **changes}, "eval": {"batch_size": 8}})
  return Parts(folder, "features", config, weights, source)


def values_of(positions):
  return [np.full(2, position, np.float32) for position in positions]


def save(of, positions):
  of.save(positions, values_of(positions))


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
  monkeypatch.setattr(parts, "_SECONDS", 0.0)


def as_process(monkeypatch, index, count, everyones=None):
  monkeypatch.setattr(jax, "process_index", lambda: index)
  monkeypatch.setattr(jax, "process_count", lambda: count)
  everyones = everyones or (lambda value: [value] * count)
  monkeypatch.setattr(hosts, "everyones", everyones)


def test_parts_are_of_the_videos_in_one_place(tmp_path, monkeypatch):
  save(kept(tmp_path), [0, 1])
  assert kept(tmp_path, threads=9).load()[0] == [0, 1]
  others = [kept(tmp_path, **{name: x}) for name, x in HAVE_IT_ELSEWHERE.items()]
  for change in (dict(name="/data/others"), dict(split="heldout")):
    others.append(kept(tmp_path, dataclasses.replace(SOURCE, **change)))
  others.append(kept(tmp_path, weights=[np.zeros(3, np.float32)]))
  monkeypatch.setenv("TFDS_DATA_DIR", "/b")
  others.append(kept(tmp_path))
  assert all(other.load() == ([], []) for other in others)
  assert len({other.folder for other in others}) == len(others)


def test_hosts_with_the_data_elsewhere_keep_parts_in_one_folder(tmp_path, monkeypatch):
  first = kept(tmp_path)
  as_process(monkeypatch, 1, 2, lambda key: [first.folder.name, key])
  elsewhere = dataclasses.replace(SOURCE, name="/mnt/videos")
  assert kept(tmp_path, elsewhere, **HAVE_IT_ELSEWHERE).folder == first.folder


def test_every_part_is_loaded_by_one_process_which_goes_on_after_it(
  tmp_path, monkeypatch
):
  before = kept(tmp_path)
  for count in range(1, 6):
    save(before, [*range(count)])
  found = []
  for index in range(2):
    as_process(monkeypatch, index, 2)
    own = kept(tmp_path)
    for _ in range(2):  # as often as it is used
      positions, values = own.load()
    np.testing.assert_array_equal(values, values_of(positions))
    assert 2 <= len(positions) <= 3
    found.append((own, positions))
  assert sorted(found[0][1] + found[1][1]) == [*range(5)]
  for index, (own, positions) in enumerate(found):
    save(own, [*positions, 6 + index])
  as_process(monkeypatch, 0, 1)
  assert sorted(kept(tmp_path).load()[0]) == [*range(5), 6, 7]


def test_what_one_process_does_not_see_yet_is_loaded_by_none_twice(
  tmp_path, monkeypatch
):
  before = kept(tmp_path)
  save(before, [0])
  save(before, [0, 1])
  names = sorted(path.name for path in before.folder.iterdir())
  (before.folder / names[1]).unlink()

  def everyones(value):  # process 0 sees both files
    return [names if isinstance(value, list) else before.folder.name, value]

  found = []
  for index in range(2):
    as_process(monkeypatch, index, 2, everyones)
    found.append(kept(tmp_path).load()[0])
  assert found == [[0], []]


def test_a_process_removes_the_parts_of_its_own_passes_alone(tmp_path, monkeypatch):
  folder = tmp_path / UNFINISHED
  one, other = kept(folder), kept(folder, interval=2)
  elsewhere = kept(tmp_path / "run" / UNFINISHED)
  for each in (one, other, elsewhere):
    save(each, [0])
  one.load(), elsewhere.load()
  remove_unfinished(tmp_path)
  assert not one.folder.exists()
  assert other.folder.exists() and elsewhere.folder.exists()
  other.load()
  remove_unfinished(tmp_path)
  assert not folder.exists()
  remove_unfinished(tmp_path)


@pytest.mark.parametrize("moment", ["mkdir", "replace"])
def test_a_pass_survives_the_loss_of_its_folder(moment, tmp_path, monkeypatch, caplog):
  own = kept(tmp_path)
  save(own, [0])

  def removing(function):
    def removed_first(*args, **options):
      shutil.rmtree(own.folder, ignore_errors=True)
      return function(*args, **options)

    return removed_first

  owner, name = {
    "mkdir": (parts, "save_arrays"),
    "replace": (parts.os, "replace"),
  }[moment]
  with monkeypatch.context() as patch:
    patch.setattr(owner, name, removing(getattr(owner, name)))
    save(own, [0, 1])
  assert "not kept for another start" in caplog.text
  save(own, [0, 1, 2])
  assert own.load()[0] == [1, 2]


def all_hosts(monkeypatch, values):
  """Lets this process be the first of some that have these values to tell."""
  texts, starts = [*map(pickle.dumps, values)], []

  def allgather(own):
    if own.dtype == np.int32:  # how much everyone has
      step = hosts._GATHERED // len(values)
      return np.asarray([divmod(len(text), step) for text in texts], np.int32)
    start = sum(starts)
    starts.append(len(own))
    found = np.zeros((len(values), len(own)), np.uint8)
    for row, text in zip(found, texts, strict=True):
      piece = np.frombuffer(text[start : start + len(own)], np.uint8)
      row[: len(piece)] = piece
    np.testing.assert_array_equal(found[0], own)
    return found

  monkeypatch.setattr(jax, "process_count", lambda: len(values))
  monkeypatch.setattr(hosts.multihost_utils, "process_allgather", allgather)


def test_a_host_that_has_much_costs_the_others_no_more_than_that(monkeypatch):
  monkeypatch.setattr(hosts, "_GATHERED", 2**20)
  much, megabytes = np.random.default_rng(0).bytes(4 * 10**6), 4
  values = [much, *map(str, range(63))]
  all_hosts(monkeypatch, values)
  tracemalloc.start()
  try:
    found = hosts.everyones(values[0])
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert found == values
  assert peak < (3 * megabytes + 5) * 10**6


def test_rows_of_all_hosts_are_sorted_and_the_first_hosts_count(monkeypatch):
  monkeypatch.setattr(hosts, "_GATHERED", 300)  # of which they need several
  nothing = np.zeros(0, np.int64), np.zeros(0, np.float64)
  rows = np.random.default_rng(0).random((5, 3))
  values = [
    nothing,
    (np.asarray([7, 2]), rows[:2]),
    nothing,
    (np.asarray([5, 7, 0]), rows[2:]),
  ]
  all_hosts(monkeypatch, values)
  numbers, found = hosts.gathered(*nothing)
  assert numbers.tolist() == [0, 2, 5, 7] and found.dtype == np.float64
  np.testing.assert_array_equal(found, rows[[4, 1, 2, 0]])
