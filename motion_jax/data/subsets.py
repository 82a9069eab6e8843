"""Parts of a data set: a few records of every class, and what is held out."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence

from motion_jax.config import UserError
from motion_jax.data.labels import has_labels
from motion_jax.data.sources import Record, Source

_OF_EACH = 8  # records of a class, at least, where only some are taken


@dataclasses.dataclass(frozen=True)
class Subset(Source):
  """Some records of another source, in its order."""

  source: Source
  positions: Sequence[int] = dataclasses.field(repr=False)

  @classmethod
  def of(cls, source: Source, positions: Sequence[int]) -> Subset:
    ids, labels = map(source.id_of, positions), (source.labels[p] for p in positions)
    about = source.name, source.split, source.classes, [*ids], [*labels]
    return cls(*about, source, positions)

  def __getitem__(self, index: int) -> Record:
    return self.source[self.positions[index]]


def low_shot(
  source: Source, *, per_class: int = 0, fraction: float = 1.0, seed: int = 0
) -> Source:
  """Takes a few records of every class (MoSI table 3, MoDist table 6).

  The smaller of two subsets with the same seed is a part of the larger one, and a
  record's place does not depend on which others there are.

  Args:
    source: with labels.
    per_class: records per class, as far as there are that many; 0 for all.
    fraction: share of each class in (0, 1], rounded up.
    seed: another seed draws other records.

  Returns:
    A subset, or `source` itself when everything is asked for.

  Raises:
    UserError: if the source has no labels, or the numbers make no sense.
  """
  if per_class < 0 or not 0 < fraction <= 1:
    raise UserError(
      f"data.per_class={per_class} must be 0 (all) or more and data.fraction="
      f"{fraction} in (0, 1]"
    )
  if not per_class and fraction == 1:
    return source
  by_class: dict[int, list[int]] = {}
  for position, label in enumerate(source.labels):
    by_class.setdefault(label, []).append(position)
  if source.classes is None or -1 in by_class:
    raise UserError(
      f"{source.name} has records without a label; data.per_class and data.fraction "
      "need class folders, or lists with a label in every line"
    )
  chosen = []
  for positions in by_class.values():
    count = math.ceil(round(fraction * len(positions), 6))  # 0.07 * 100 is above 7
    positions = sorted(positions, key=lambda p: _rank(seed, source.id_of(p)))
    chosen += positions[: min(count, per_class or count)]
  return Subset.of(source, sorted(chosen))


def subset_of_size(source: Source, limit: int, *, seed: int = 0) -> Source:
  """Takes about `limit` records, of all classes alike if there are labels; 0: all.

  Args:
    source: what is drawn from.
    limit: how many; a class with a fraction of a record gets a whole one, unless there
      are more classes than records are wanted.
    seed: another seed draws other records.
  """
  if not limit or limit >= len(source):
    return source
  if has_labels(source) and limit >= len(source.classes):
    return low_shot(source, fraction=limit / len(source), seed=seed)
  ranked = sorted(range(len(source)), key=lambda p: _rank(seed, source.id_of(p)))
  return Subset.of(source, sorted(ranked[:limit]))


def few_of_both(
  train: Source, heldout: Source, limit: int, *, seed: int = 0
) -> tuple[Source, Source]:
  """Takes about `limit` records of each part, of the same classes.

  Of many classes it takes a few, each with records enough to be told by: hundreds of
  classes with a record each would tell little.

  Args:
    train, heldout: with labels.
    limit: how many of each part; a class gives as many as the others, if it has them.
    seed: another seed draws other classes and records.

  Raises:
    UserError: if the parts share less than two classes.
  """
  shared = sorted({*train.labels} & {*heldout.labels})
  if len(shared) < 2:
    raise UserError(
      f"{train.name}: {len(shared)} classes are in both parts, two are needed"
    )
  count = max(2, limit // _OF_EACH)
  ranked = sorted(shared, key=lambda label: _rank(seed, train.classes[label]))
  classes = {*ranked[:count]}
  few = []
  for source in (train, heldout):
    places = [p for p, label in enumerate(source.labels) if label in classes]
    per_class = max(1, limit // len(classes))
    few.append(low_shot(Subset.of(source, places), per_class=per_class, seed=seed))
  return few[0], few[1]


def _rank(seed: int, name: str) -> bytes:
  text = f"{seed}:{name}".encode("utf-8", "surrogateescape")
  return hashlib.blake2b(text, digest_size=8).digest()


def held_out(paths: list[str], labels: list[int] | None, fraction: float) -> set[int]:
  """Chooses the files that are held out by their paths alone: the same of the same.

  Args:
    paths: of all files, in their folder.
    labels: their classes, each of which gives its share; None: there are none, or they
      do not matter.
    fraction: share that is held out.

  Returns:
    Positions in `paths`.
  """
  scores = [_hash(path) for path in paths]
  heldout = _of_each_class(labels, scores, fraction) if labels else set()
  return heldout or _of_all(scores, fraction)


def _of_all(scores: list[float], fraction: float) -> set[int]:
  """Holds out each file by its score alone: none moves when the folder grows."""
  everything = range(len(scores))
  heldout = {i for i in everything if scores[i] < fraction}
  if fraction and len(scores) > 1:  # both parts hold something, however few files
    heldout = heldout or {min(everything, key=scores.__getitem__)}
    if len(heldout) == len(scores):
      heldout.remove(max(everything, key=scores.__getitem__))
  return heldout


def _of_each_class(labels: list[int], scores: list[float], fraction: float) -> set[int]:
  """Holds out a share of each class, at least one of two files, never the only one.

  Nothing where most files are alone in their folders: such folders are no classes.
  """
  members = collections.defaultdict(list)
  for index in sorted(range(len(labels)), key=scores.__getitem__):
    members[labels[index]].append(index)
  heldout = set()
  for indices in members.values():
    count = min(len(indices) - 1, max(1, math.floor(fraction * len(indices) + 0.5)))
    heldout |= set(indices[:count])
  alone = sum(len(indices) == 1 for indices in members.values())
  return heldout if fraction and 2 * alone <= len(labels) else set()


def _hash(name: str) -> float:
  """Maps a name to [0, 1)."""
  digest = hashlib.blake2b(os.fsencode(name), digest_size=6).digest()
  return int.from_bytes(digest, "big") / 2**48
