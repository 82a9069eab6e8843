"""The labels of MAS (Wang et al., CVPR 2019): which exist, and their values.

Contract: as in `motion_statistics` and `appearance_statistics`. All labels are whole
numbers from 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from motion_jax.ops import appearance_statistics, motion_statistics, partition

BRANCHES = ("motion", "appearance")
# Boundaries of less than this everywhere (six times the slope in pixels per pixel,
# summed over the frames) are those of a clip in which nothing moves.
_STILL = 1e-3


class Label(NamedTuple):
  """One label of a clip.

  Fields:
    branch: 'motion' or 'appearance'.
    kind: 'location', 'orientation', 'colour' or 'frame'.
    pattern: a name of `partition.PATTERNS`, or '' for a label of the whole clip.
    what: 'u' or 'v' for motion, 'diverse', 'stable' or 'clip' for appearance.
    classes: number of values.
  """

  branch: str
  kind: str
  pattern: str
  what: str
  classes: int


def label_table(frames: int) -> tuple[Label, ...]:
  """All 27 labels in the order of `clip_labels`; `frames` is the clip's length."""
  result = []
  for branch, kind, sides in (
    ("motion", "orientation", ("u", "v")),
    ("appearance", "colour", ("diverse", "stable")),
  ):
    for pattern, region in partition.REGIONS.items():
      for side in sides:
        places = region.stop - region.start
        result.append(Label(branch, "location", pattern, side, places))
        result.append(Label(branch, kind, pattern, side, 8))
    if branch == "motion":
      result += [Label(branch, "frame", "", side, frames - 1) for side in sides]
  return (*result, Label("appearance", "colour", "", "clip", 8))


def select_labels(
  table: Sequence[Label],
  *,
  branches: Sequence[str],
  patterns: Sequence[str],
  local_labels: bool,
  global_labels: bool,
) -> tuple[int, ...]:
  """Positions in `table` of the labels to learn: the ablations of tables 1 to 3.

  Args:
    table: from `label_table`.
    branches: some of `BRANCHES`.
    patterns: some of `partition.PATTERNS`.
    local_labels: with the labels of the patterns' regions.
    global_labels: with those of the whole clip.
  """
  return tuple(
    index
    for index, label in enumerate(table)
    if label.branch in branches
    and (local_labels and label.pattern in patterns if label.pattern else global_labels)
  )


def clip_labels(
  video: jax.Array, flow: jax.Array, *, voting: str = "soft", colour: str = "histogram"
) -> tuple[jax.Array, jax.Array]:
  """All labels of a clip; those of motion are 1 where nothing moves.

  Args:
    video: [B, T, S, S, 3] uint8 RGB.
    flow: [B, T - 1, S, S, 2], from each frame to the next.
    voting: see `motion_statistics`.
    colour: see `appearance_statistics`.

  Returns:
    labels: [B, 27] int32 in the order of `label_table`.
    still: [B] bool, where nothing moves.
  """
  motion = motion_statistics.motion_statistics(flow, voting=voting)
  appearance = appearance_statistics.appearance_statistics(video, colour=colour)
  still = motion.regions.max((1, 2)) < _STILL
  labels = (
    jnp.where(still[:, None], 1, motion_statistics.motion_labels(motion)),
    appearance_statistics.appearance_labels(appearance),
  )
  return jnp.concatenate(labels, 1), still
