"""Curves of a run as one PNG."""

import itertools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from motion_jax.visualize.style import (
  BLUE,
  GREY,
  OTHERS,
  RED,
  SMALL,
  TEXT,
  figure,
  frame,
)

# Their colours and what they are called.
PHASES = {
  "train": (BLUE, "training"),
  "eval": (RED, "held out"),
  "eval/random_init": (GREY, "held out, untrained"),
}
COLUMNS = 3


def save_curves(
  path: str | os.PathLike,
  rows: Sequence[Mapping[str, float]],
  keys: Sequence[str] | None = None,
) -> None:
  """Plots metrics over steps, one panel per metric, train and eval together.

  A key reads '<phase>/<metric>', e.g. 'train/loss' and 'eval/loss' share the panel
  'loss'; what is between phase and metric becomes part of the phase, as in
  'eval/random_init/retrieval_r1'.

  Args:
    path: PNG to write; nothing is written when no row has any of the keys.
    rows: rows of metrics.jsonl, each with 'step' and some metrics.
    keys: metrics to plot, in this order; default: all numbers in the rows, but not
      what was measured once only, unless that holds for all.
  """
  chosen = keys is not None
  if not chosen:
    found = (k for row in rows for k, v in row.items() if _is_number(v))
    keys = [key for key in dict.fromkeys(found) if key != "step"]
  panels = {}
  for key in keys:
    points = [(row["step"], row[key]) for row in rows if _is_number(row.get(key))]
    if points:
      phase, _, metric = key.rpartition("/")
      panels.setdefault(metric, []).append((phase, np.array(points, float)))
  if not panels:
    return
  if not chosen:
    longest = {name: max(len(p) for _, p in curves) for name, curves in panels.items()}
    panels = {k: v for k, v in panels.items() if longest[k] > 1} or panels
  columns = min(COLUMNS, len(panels))
  lines = math.ceil(len(panels) / columns)
  sheet = figure(4.4 * columns, 3.1 * lines, layout="constrained")
  for index, (metric, curves) in enumerate(panels.items()):
    axes = sheet.add_subplot(lines, columns, index + 1)
    _draw_panel(axes, metric, curves)
  sheet.savefig(path, format="png")


def _draw_panel(axes, metric, curves):
  others = itertools.cycle(OTHERS)
  for phase, points in curves:
    step, value = points.T
    color, label = PHASES.get(phase) or (next(others), phase)
    marker = "o" if len(step) < 40 else None
    axes.plot(step, value, color=color, marker=marker, ms=3.5, lw=1.6, label=label)
  frame(axes, metric.replace("_", " "))
  axes.set_xlabel("step", fontsize=TEXT, color=GREY)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
  axes.grid(color="#e8e8e8", lw=0.8)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False, fontsize=SMALL)


def _is_number(value):
  return isinstance(value, int | float) and math.isfinite(value)
