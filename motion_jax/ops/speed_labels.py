"""Speed labels of MoSI: which motions exist, in which order, under which class.

A speed is an integer pair (x, y). Positive x moves the crop window to the right,
positive y moves it down, so the content moves the other way on the screen.
"""

from typing import NamedTuple

import numpy as np

AXES = ("x", "y", "xy")


class LabelPool(NamedTuple):
  """The motions of one task; row i of every field describes class i.

  Fields:
    speeds: [P, 2] int32, (x, y) in [-steps, steps].
    joint: [P] int32, 0..P-1.
    separate_x, separate_y: [P] int32, classes of a head per axis.
    steps: number of non-zero speeds in each direction (K; the paper's C is 2K+1).
  """

  speeds: np.ndarray
  joint: np.ndarray
  separate_x: np.ndarray
  separate_y: np.ndarray
  steps: int

  @property
  def num_classes(self) -> int:
    return len(self.joint)


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
  steps = range(-speeds, speeds + 1)
  if decoupled:
    pairs = [(x, 0) for x in steps if x and "x" in axes]
    pairs += [(0, y) for y in steps if y and "y" in axes]
    pairs += [(0, 0)] * static
  else:
    pairs = [(x, y) for x in steps for y in steps]
  pool = np.array(pairs, np.int32)
  # Without a static class the positive speeds move down by one, and a zero speed
  # shares the class of speed +1 (official numbering).
  separate = pool + speeds - (0 if static else pool > 0)
  return LabelPool(
    speeds=pool,
    joint=np.arange(len(pool), dtype=np.int32),
    separate_x=separate[:, 0].astype(np.int32),
    separate_y=separate[:, 1].astype(np.int32),
    steps=speeds,
  )
