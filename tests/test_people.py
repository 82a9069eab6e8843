"""Boxes in columns and the people they tell of, against plain dicts and lists."""

import json
import pickle

import numpy as np
import paper_sets
import pytest

from motion_jax import prepare
from motion_jax.data import open_source
from motion_jax.data.box_rows import BoxRows, loaded, stored
from motion_jax.data.people import annotated_people, detected_people, with_detected


def _rows(count, frames=40, seed=0):
  """Rows of which some tell of other actions of one person."""
  rng = np.random.default_rng(seed)
  corners = [[0.1, 0.2, 0.5, 0.75], [0.1, 0.2, 0.5, 0.8], [0.4, 0.0, 0.9, 0.5]]
  numbers = rng.integers([0, 0, -1, 0], [frames, 3, 14, 8], (count, 4)).tolist()
  return [
    [f"film {frame}", *corners[box], action, score / 8]
    for frame, box, action, score in numbers
  ]


def test_rows_come_back_in_their_order(tmp_path):
  rows = _rows(100)
  found = BoxRows.of(rows)
  assert [*found] == rows and found.frames() == [row[0] for row in rows]
  notes = {"boxes": {"train": rows}, "persons": {"train": []}, "other": [1]}
  kept = json.loads(json.dumps(stored(notes, tmp_path)))
  again = loaded(kept, tmp_path)
  assert [*again["boxes"]["train"]] == rows and again["other"] == [1]
  assert not again["persons"]["train"]
  assert [*loaded(notes, tmp_path)["boxes"]["train"]] == rows  # of older data sets


def test_annotations_are_grouped_by_frame_and_box():
  rows, expected = _rows(400), {}
  for name, *box, action, _ in rows:
    expected.setdefault(name, {}).setdefault(tuple(box), set()).add(action)
  people = pickle.loads(pickle.dumps(annotated_people(rows, 12)))
  assert {*people} == {*expected} and len(people) == len(expected)
  for name, known in expected.items():
    np.testing.assert_array_equal(people[name].boxes, np.float32([*known]))
    found = [{*(np.flatnonzero(row) + 1).tolist()} for row in people[name].actions]
    assert found == [actions & {*range(1, 13)} for actions in known.values()]
  assert people.get("film") is None and people.get("zzz") is None


def test_detections_are_sorted_by_their_scores():
  rows, expected = _rows(400, seed=1), {}
  for name, *box, _, score in sorted(rows, key=lambda row: -row[-1]):
    if score >= 0.5:
      expected.setdefault(name, []).append(box)
  people = detected_people(rows, 12, 0.5)
  assert {*people} == {*expected}
  for name, boxes in expected.items():
    np.testing.assert_array_equal(people[name].boxes, np.float32(boxes))
    assert people[name].actions.shape == (len(boxes), 12)
    assert not people[name].actions.any()


def test_detections_get_the_actions_of_whom_they_overlap():
  annotated = annotated_people(_rows(60, frames=30), 12)
  detected = detected_people(_rows(60, frames=60, seed=2), 12, 0.5)
  people = with_detected(annotated, detected, 0.9)
  assert {*people} == {*annotated}
  for name, known in annotated.items():
    own = {tuple(box): row for box, row in zip(*vars(known).values(), strict=True)}
    same = (
      [b for b in detected[name].boxes if tuple(b) in own] if name in detected else []
    )
    expected = np.concatenate([known.boxes, np.reshape(same, (-1, 4))])
    near = [box for box in expected if tuple(box) in own]
    assert len(people[name].boxes) >= len(near) == len(expected)
    for box, row in zip(people[name].boxes, people[name].actions, strict=True):
      if tuple(box) in own:
        np.testing.assert_array_equal(row, own[tuple(box)])


def test_no_people_are_no_error():
  for people in (annotated_people([], 5), detected_people(_rows(9), 5, 2.0)):
    assert len(people) == 0 and people.get("film 1") is None
  both = with_detected(annotated_people(_rows(9), 5), detected_people([], 5, 0.5), 0.9)
  assert len(both) == len({row[0] for row in _rows(9)})


def test_boxes_go_to_workers_in_few_bytes(tmp_path, monkeypatch):
  people = annotated_people(_rows(20_000, frames=5000), 80)
  assert len(pickle.dumps(people)) < 40 * len(people.boxes)
  options = paper_sets.detections(tmp_path, monkeypatch)
  prepare.prepare("ava", **options)
  source = open_source("ava", data_dir=options["data_dir"])
  assert isinstance(source.notes["boxes"]["train"], BoxRows)
  again = pickle.loads(pickle.dumps(source))
  assert not again.notes and again[0] == source[0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_older_data_sets_have_rows_in_their_notes(split, tmp_path, monkeypatch):
  options = paper_sets.detections(tmp_path, monkeypatch)
  made = prepare.prepare("ava", **options)
  before = open_source("ava", split=split, data_dir=options["data_dir"])
  metadata = json.loads((made / "metadata.json").read_text())
  for kind in ("boxes", "persons"):
    metadata["notes"][kind] = {
      name: [*rows] for name, rows in before.notes[kind].items()
    }
  (made / "metadata.json").write_text(json.dumps(metadata))
  for file in made.glob("*.npz"):
    file.unlink()
  after = open_source("ava", split=split, data_dir=options["data_dir"])
  for kind in ("boxes", "persons"):
    rows = before.notes[kind][split], after.notes[kind][split]
    assert [*rows[0]] == [*rows[1]]
