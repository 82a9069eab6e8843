"""Which videos belong together, as all of one person, and what they are worth apart."""

import re
from collections.abc import Callable

import numpy as np

from motion_jax import logs
from motion_jax.config import UserError
from motion_jax.data.sources import Source


def groups_of(source: Source, rule: str) -> np.ndarray:
  """The name of the group [N] of every record of a source, by its identifier.

  Args:
    source: the records; of a folder their identifiers are the paths in it.
    rule: regular expression that is searched in each; a group is what its first
      parentheses find, or all of it where it has none. '/([a-z]+)_' finds 'daria' in
      'Bend/daria_bend.mp4', '_(g[0-9]+)_' a group of UCF101.

  Raises:
    UserError: if it is no regular expression, or finds nothing in some identifier.
  """
  try:
    pattern = re.compile(rule)
  except re.error as error:
    raise UserError(f"eval.groups={rule!r} is no regular expression: {error}") from None
  found = [pattern.search(source.id_of(place)) for place in range(len(source))]
  names = [match and match[min(1, pattern.groups)] for match in found]
  lost = [source.id_of(place) for place, name in enumerate(names) if not name]
  if lost:
    raise UserError(
      f"eval.groups={rule!r} finds nothing in {len(lost)} of {len(names)} names of "
      f"{source.name}, as {lost[0]!r}; it is searched in paths below that folder"
    )
  return np.asarray(names)


def check_groups(groups: np.ndarray, labels: np.ndarray, rule: str) -> np.ndarray:
  """Checks that videos of a class are left where a group is left out.

  Args:
    groups: [N] group of every video.
    labels: int [N], their classes.
    rule: that has found the groups.

  Returns:
    The classes that lie in a single group: no other has a video of theirs.

  Raises:
    UserError: if all do, or there is one group alone.
  """
  names, numbers = np.unique(groups, return_inverse=True)
  if len(names) < 2:
    raise UserError(
      f"eval.groups={rule!r} finds one group, {str(groups[0])!r}: without it nothing "
      "is left. Put what tells groups apart in parentheses, as in '/([a-z]+)_'"
    )
  pairs = np.unique(np.stack([labels, numbers], 1), axis=0)
  classes, counts = np.unique(pairs[:, 0], return_counts=True)
  if (counts == 1).all():
    raise UserError(
      f"eval.groups={rule!r} finds {len(names)} groups, as {str(names[0])!r}, and no "
      "class has videos in two of them, so none would be found. A group is what videos "
      "of several classes share, as a person: '/([a-z]+)_'"
    )
  return classes[counts == 1]


def without_each(
  groups: np.ndarray, scores: Callable[[np.ndarray], dict[str, float]]
) -> dict[str, float]:
  """Scores of every group by all others, as shares of all videos.

  Args:
    groups: [N] group of every video.
    scores: maps bool [N], the group that is left out, to shares of its videos.

  Returns:
    Their means over the videos, of the scores that every group has.
  """
  names, counts = np.unique(groups, return_counts=True)
  sums: dict[str, list[float]] = {}
  with logs.progress_bar(len(groups), "left out by groups") as show:
    for name, count, done in zip(names, counts, counts.cumsum(), strict=True):
      for key, value in scores(groups == name).items():
        sums.setdefault(key, []).append(value * count)
      show(int(done))
  complete = {key: x for key, x in sums.items() if len(x) == len(names)}
  return {key: float(sum(x) / len(groups)) for key, x in complete.items()}
