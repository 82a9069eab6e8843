"""Checks that records have the labels that a supervised task needs."""

from __future__ import annotations

import logging

import numpy as np

from motion_jax.config import UserError
from motion_jax.data.sources import Source

logger = logging.getLogger("motion_jax")


def has_labels(source: Source) -> bool:
  """Tells whether every record has a label."""
  return source.classes is not None and min(source.labels, default=-1) >= 0


def same_classes(train: Source, test: Source) -> tuple[str, ...]:
  """Returns the names of the classes, which both parts of a data set number alike.

  Raises:
    UserError: if they do not, or a record has no label; the message has the fix.
  """
  for source in (train, test):
    if not has_labels(source):
      raise UserError(
        f"{source.name}, split {source.split}: not every video has a label. "
        f"{_classes_below(source)}Put the videos of each class into a sub-folder of "
        "its own, or give data.train_list and data.heldout_list with lines `path label`"
      )
  names, other = train.classes, test.classes
  in_both = {*np.asarray(train.labels).tolist()} & {*np.asarray(test.labels).tolist()}
  if any(names[label] != other[label] for label in in_both):
    raise UserError(
      f"{train.name}: the training part's classes {_few(names)} are not those of the "
      f"held-out part, {_few(other)}; number them alike in both lists"
    )
  return names


def common_classes(train: Source, test: Source) -> tuple[str, ...]:
  """Returns the names of the classes that both parts of a data set share.

  Args:
    train: what is trained on, or searched in.
    test: what is tested.

  Raises:
    UserError: as `same_classes`, and if a class has no training record.
  """
  names, other = same_classes(train, test), test.classes
  known = np.bincount(train.labels, minlength=len(names))
  tested = {*np.asarray(test.labels).tolist()}
  lost = [
    other[label] for label in sorted(tested) if label >= len(known) or not known[label]
  ]
  if lost:
    raise UserError(
      f"{train.name}: the only video of {_few(lost)}, or all of them, is held out, and "
      "none is left to train on. A class needs two videos or more: add some, or say "
      "which are held out by data.train_list and data.heldout_list"
    )
  return names


def _classes_below(source):
  """Where the classes are, if a folder holds nothing but the folder of them."""
  places = [name.split("/") for name in source.ids]
  top = {place[0] for place in places}
  if len(top) > 1 or min(map(len, places), default=0) < 3:
    return ""
  return (
    "A class is a direct sub-folder of data.path: did you mean "
    f"{source.name}/{min(top)}? Or else: "
  )


def check_apart(train: Source, test: Source) -> None:
  """Checks that no record is in both parts: it would find itself.

  Raises:
    UserError: if one is.
  """
  shared = sorted({*train.ids} & {*test.ids})
  if shared:
    raise UserError(
      f"{train.name}: {len(shared)} of {len(test)} held-out files are in the list to "
      f"train on, too, as {shared[0]!r}; take them out of one of the lists"
    )


def warn_of_gaps(train: Source, test: Source) -> None:
  """Names the classes that a part of a data set has no record of, if there are some."""
  for part, words in ((train, "training"), (test, "held-out")):
    known = {*np.asarray(part.labels).tolist()}
    gaps = [name for label, name in enumerate(train.classes) if label not in known]
    if gaps:
      logger.warning(
        "%s: %d of %d classes without a %s video: %s",
        train.name,
        len(gaps),
        len(train.classes),
        words,
        _few(gaps),
      )


def _few(names) -> str:
  return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
