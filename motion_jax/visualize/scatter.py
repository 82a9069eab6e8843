"""A map of videos as points: one panel per way to colour them."""

import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from motion_jax.visualize.style import SMALL, figure, frame, printable

_MOST_NAMES = 20  # of groups that a legend can tell apart


def save_scatter(
  path: str | os.PathLike,
  points: np.ndarray,
  panels: Mapping[str, tuple[np.ndarray, Sequence[str]]],
) -> None:
  """Writes a PNG of points in the colours of their groups.

  Args:
    path: file to write.
    points: [N, 2].
    panels: by title, (group [N] int, names of the groups). Of more than 20 groups
      there is no legend, and colours repeat.
  """
  sheet = figure(5.4 * len(panels), 5.6, layout="constrained")
  places = sheet.subplots(1, len(panels), squeeze=False)[0]
  for axes, (title, (groups, names)) in zip(places, panels.items(), strict=True):
    present = np.unique(groups)
    colors = matplotlib.colormaps["tab10" if len(present) <= 10 else "tab20"].colors
    for number in present:
      inside = points[groups == number]
      axes.scatter(
        *inside.T,
        s=22,
        color=colors[int(number) % len(colors)],
        edgecolor="white",
        linewidth=0.5,
        # A space first: what begins with _ would be hidden.
        label=f" {printable(names[number])}",
      )
    frame(axes, title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", "datalim")
    if len(present) <= _MOST_NAMES:
      axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=min(4, len(present)),
        frameon=False,
        fontsize=SMALL,
        handletextpad=0.1,
      )
  sheet.savefig(path, format="png")
