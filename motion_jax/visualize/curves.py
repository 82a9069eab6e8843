"""Curves of a run as one PNG."""

import itertools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PHASES = {"train": "#00798c", "eval": "#d1495b", "eval/random_init": "#8d96a3"}
OTHERS = ("#edae49", "#66a182", "#2e4057", "#9d6bb0")
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
  figure = Figure(figsize=(4.4 * columns, 3.1 * lines), dpi=110, layout="constrained")
  FigureCanvasAgg(figure)
  for index, (metric, curves) in enumerate(panels.items()):
    axes = figure.add_subplot(lines, columns, index + 1)
    _draw_panel(axes, metric, curves)
  figure.savefig(path, format="png")


def _draw_panel(axes, metric, curves):
  others = itertools.cycle(OTHERS)
  for phase, points in curves:
    step, value = points.T
    color = PHASES.get(phase) or next(others)
    marker = "o" if len(step) < 40 else None
    axes.plot(step, value, color=color, marker=marker, ms=3.5, lw=1.6, label=phase)
  axes.set_title(metric.replace("_", " "), fontsize=11, color="#222222")
  axes.set_xlabel("step", fontsize=9, color="#555555")
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
  axes.grid(color="#e4e4e4", lw=0.8)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(labelsize=8, color="#999999", labelcolor="#444444")
  axes.legend(frameon=False, fontsize=8)


def _is_number(value):
  return isinstance(value, int | float) and math.isfinite(value)
