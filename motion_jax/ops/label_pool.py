"""The label pool of MoSI: which motions exist, in which order, under which class.

A speed is an integer pair (x, y). Positive x moves the crop window to the right,
positive y moves it down, so the content moves the other way on the screen.
"""

import dataclasses
import functools

import numpy as np

AXES = ("x", "y", "xy")


@dataclasses.dataclass(frozen=True)
class LabelPool:
  """The motions of one task, hashable; row i of every array describes class i.

  Attributes:
    steps: non-zero speeds per direction (K; the paper's C is 2K+1).
    axes, static, decoupled: see `label_pool`.
    speeds: [P, 2] int32, (x, y) in [-steps, steps].
    joint: [P] int32, 0..P-1.
    separate_x, separate_y: [P] int32, classes of one head per axis.
  """

  steps: int
  axes: str
  static: bool
  decoupled: bool

  @functools.cached_property
  def speeds(self) -> np.ndarray:
    steps = range(-self.steps, self.steps + 1)
    if not self.decoupled:
      return np.array([(x, y) for x in steps for y in steps], np.int32)
    pairs = [(x, 0) for x in steps if x and "x" in self.axes]
    pairs += [(0, y) for y in steps if y and "y" in self.axes]
    pairs += [(0, 0)] * self.static
    return np.array(pairs, np.int32)

  @property
  def num_classes(self) -> int:
    return len(self.speeds)

  @property
  def joint(self) -> np.ndarray:
    return np.arange(self.num_classes, dtype=np.int32)

  @property
  def separate_x(self) -> np.ndarray:
    return self._separate(0)

  @property
  def separate_y(self) -> np.ndarray:
    return self._separate(1)

  def _separate(self, axis: int) -> np.ndarray:
    speed = self.speeds[:, axis]
    # Without a static class the positive speeds move down by one, and a zero speed
    # shares the class of speed +1 (official numbering).
    moved_down = 0 if self.static else speed > 0
    return (speed + self.steps - moved_down).astype(np.int32)


def label_pool(
  speeds: int = 2, *, axes: str = "xy", static: bool = True, decoupled: bool = True
) -> LabelPool:
  """Lists the motions of a MoSI task in the order of the official code.

  Huang et al., CVPR 2021, section 3.1; `speeds=2, axes='xy'` gives the 9 classes of
  the paper. Decoupled pools move along one axis at a time and end with the static
  class; the joint grid holds all (2K+1)^2 pairs, the static one in its middle.

  Args:
    speeds: K >= 1, non-zero speeds per direction.
    axes: 'x', 'y' or 'xy'.
    static: whether (0, 0) is a class. The joint grid always has it; there it only
      changes how the separate classes are numbered, as in the official code.
    decoupled: one axis at a time (the paper), or the whole grid (`axes='xy'` only).

  Returns:
    A LabelPool.

  Raises:
    ValueError: for unknown axes, speeds < 1, or a joint grid over a single axis.
  """
  if speeds < 1:
    raise ValueError(f"speeds must be 1 or more, found {speeds}")
  if axes not in AXES:
    raise ValueError(f"axes must be one of {', '.join(AXES)}; found {axes!r}")
  if not decoupled and axes != "xy":
    raise ValueError(
      f"the joint grid (decoupled=False) needs axes='xy', found {axes!r}; "
      "a single axis has only the decoupled pool"
    )
  return LabelPool(speeds, axes, static, decoupled)
