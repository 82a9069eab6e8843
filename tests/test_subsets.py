"""Few labelled videos per class."""

import collections
import itertools

import pytest

from motion_jax.config import UserError
from motion_jax.data.sources import Record
from motion_jax.data.subsets import low_shot


class _Source:
  name, split = "ten", "train"

  def __init__(self, sizes=(10, 7, 3), classes=("a", "b", "c")):
    self.classes = classes
    self.labels = [label for label, size in enumerate(sizes) for _ in range(size)]

  def __len__(self):
    return len(self.labels)

  def __getitem__(self, index):
    return Record(self.id_of(index), "image", b"", self.labels[index])

  def id_of(self, index):
    return f"{self.labels[index]}/{index}"


def _ids(source):
  return [source.id_of(index) for index in range(len(source))]


@pytest.mark.parametrize(
  ("options", "counts"),
  [
    ({"per_class": 2}, [2, 2, 2]),
    ({"per_class": 5}, [5, 5, 3]),
    ({"fraction": 0.01}, [1, 1, 1]),
    ({"fraction": 0.2}, [2, 2, 1]),
    ({"fraction": 0.5, "per_class": 4}, [4, 4, 2]),
  ],
)
def test_every_class_gets_its_share(options, counts):
  subset = low_shot(_Source(), **options)
  found = collections.Counter(subset.labels)
  assert [found[label] for label in range(3)] == counts
  assert [subset[i].label for i in range(len(subset))] == list(subset.labels)
  assert [subset[i].id for i in range(len(subset))] == _ids(subset)


def test_subsets_of_one_seed_are_nested_and_seeds_differ():
  source = _Source((40, 40, 40))
  parts = [set(_ids(low_shot(source, per_class=n, seed=1))) for n in (3, 5, 7, 13)]
  assert all(small < large for small, large in itertools.pairwise(parts))
  halves = [set(_ids(low_shot(source, fraction=f))) for f in (0.05, 0.2, 0.6)]
  assert halves[0] < halves[1] < halves[2]
  assert parts[0] != set(_ids(low_shot(source, per_class=3, seed=2)))


def test_everything_is_the_source_itself():
  source = _Source()
  assert low_shot(source) is source


def test_senseless_numbers_and_missing_labels_are_refused():
  with pytest.raises(UserError, match=r"data\.fraction"):
    low_shot(_Source(), fraction=0.0)
  unlabelled = _Source(classes=None)
  with pytest.raises(UserError, match="without a label"):
    low_shot(unlabelled, per_class=3)
