"""Which files of a folder are held out, decided by their paths alone."""

from __future__ import annotations

import collections
import hashlib
import math
import os


def select(
  paths: list[str], labels: list[int] | None, split: str, fraction: float
) -> list[int]:
  """Chooses the files of a split, the same of the same paths.

  Args:
    paths: of all files, in their folder.
    labels: their classes, each of which gives its share; None: there are none, or they
      do not matter.
    split: "train", "heldout" or "all".
    fraction: share that is held out.

  Returns:
    Positions in `paths`.
  """
  everything = list(range(len(paths)))
  if split == "all":
    return everything
  scores = [_hash(path) for path in paths]
  heldout = _of_each_class(labels, scores, fraction) if labels else set()
  if not heldout:
    heldout = _of_all(scores, fraction)
  return [i for i in everything if (i in heldout) == (split == "heldout")]


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
