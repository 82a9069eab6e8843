"""What a run's last numbers mean, in words."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

PAGE = "docs/evaluation.md"
_ONLINE = "online_knn_top1"  # tells less than the others, of fewer videos
_OF_CLASSES = ("retrieval_r1", "knn_top1", "linear_top1", _ONLINE, "top1")
_SHARES = (*_OF_CLASSES, "top5", "frame_map")


def verdict(
  values: Mapping[str, float],
  names: Sequence[str],
  *,
  videos: int,
  classes: int,
  few: tuple[int, int] = (0, 0),
  chance: Mapping[str, float] = MappingProxyType({}),
) -> list[str]:
  """Lines about the few numbers that tell most.

  Beside a share stand that of the untrained network and of chance, where known, and
  whether training has raised it by more than chance does: by two standard deviations
  of the difference of two shares of so many videos.

  Args:
    values: what was measured last, by its name.
    names: of the method's own metrics.
    videos: how many were held out.
    classes: of their labels; 0 without.
    few: videos and classes of what is measured often.
    chance: what guessing gets, of the method's metrics that are shares.

  Returns:
    A line per number, and one that explains the words.
  """
  lines, compared = [], 0
  for name in dict.fromkeys((*names, *_SHARES)):
    value = values.get(f"eval/{name}")
    if value is None or (name == _ONLINE and "eval/knn_top1" in values):
      continue
    beside, words = [], ""
    count, labels = few if name == _ONLINE else (videos, classes)
    untrained = values.get(f"eval/random_init/{name}")
    if untrained is not None:
      beside.append(f"untrained {untrained:.3f}")
      words, compared = _compared(value, untrained, count), count
    guess = values.get(f"eval/{name.removesuffix('_accuracy')}_constant")
    if guess is not None and name.endswith("_accuracy"):
      beside.append(f"best constant guess {guess:.3f}")
    guessed = 1 / labels if labels and name in _OF_CLASSES else chance.get(name)
    if guessed is not None:
      beside.append(f"chance {guessed:.3f}")
    if name in chance and at_chance(value, chance[name]):
      words = f": at chance; see {PAGE}, 'When nothing is learned'"
    note = f"  ({', '.join(beside)})" if beside else ""
    lines.append(f"  {name:24s}{value:.3f}{note}{words}")
  if compared:
    lines.append(
      f"  'the same' means: of {compared} videos, differences below "
      f"{_spread(0.5, compared):.2f} or less may be chance; see {PAGE}"
    )
  return lines


def at_chance(share: float, chance: float) -> bool:
  """Whether a share is less than a tenth of the way from chance to 1."""
  return share < chance + 0.1 * (1 - chance)


def _compared(value: float, untrained: float, videos: int) -> str:
  spread = _spread((value + untrained) / 2, videos)
  if value > untrained + spread:
    return ": better than untrained"
  if value < untrained - spread:
    return ": WORSE than untrained"
  return ": the same as untrained"


def _spread(share: float, videos: int) -> float:
  return 2 * math.sqrt(2 * share * (1 - share) / max(1, videos))
