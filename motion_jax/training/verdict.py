"""What a run's last numbers mean, in words."""

import math
from collections.abc import Mapping, Sequence

PAGE = "docs/evaluation.md"
_SHARES = ("retrieval_r1", "knn_top1", "linear_top1", "top1", "top5", "frame_map")


def verdict(
  values: Mapping[str, float], names: Sequence[str], *, videos: int, classes: int
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

  Returns:
    A line per number, and one that explains the words.
  """
  lines, compared = [], False
  for name in dict.fromkeys((*names, *_SHARES)):
    value = values.get(f"eval/{name}")
    if value is None:
      continue
    beside, words = [], ""
    untrained = values.get(f"eval/random_init/{name}")
    if untrained is not None:
      beside.append(f"untrained {untrained:.3f}")
      words, compared = _compared(value, untrained, videos), True
    guess = values.get(f"eval/{name.removesuffix('_accuracy')}_constant")
    if guess is not None and name.endswith("_accuracy"):
      beside.append(f"best constant guess {guess:.3f}")
    if classes and name in ("retrieval_r1", "knn_top1", "linear_top1", "top1"):
      beside.append(f"chance {1 / classes:.3f}")
    note = f"  ({', '.join(beside)})" if beside else ""
    lines.append(f"  {name:24s}{value:.3f}{note}{words}")
  if compared:
    lines.append(
      f"  'the same' means: of {videos} videos, differences below "
      f"{_spread(0.5, videos):.2f} or less may be chance; see {PAGE}"
    )
  return lines


def _compared(value: float, untrained: float, videos: int) -> str:
  spread = _spread((value + untrained) / 2, videos)
  if value > untrained + spread:
    return ": better than untrained"
  if value < untrained - spread:
    return ": WORSE than untrained"
  return ": the same as untrained"


def _spread(share: float, videos: int) -> float:
  return 2 * math.sqrt(2 * share * (1 - share) / max(1, videos))
