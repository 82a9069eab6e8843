"""Which frames of a video make up clips."""

from __future__ import annotations

import numpy as np


def segment_indices(
  num_frames: int, segments: int, draws: np.ndarray | None = None
) -> np.ndarray:
  """Returns a frame number of each segment of a video, as SlowFast chooses them.

  Args:
    num_frames: length of the video.
    segments: their number n; number i reaches from frame round(i (L - 1) / n) to
      frame round((i + 1) (L - 1) / n), both included.
    draws: [segments] uniform in [0, 1), which frame of each; None for the middle.

  Returns:
    [segments] int64, in [0, num_frames), rising.
  """
  edges = np.round(np.arange(segments + 1) * ((num_frames - 1) / segments))
  edges = edges.astype(np.int64)
  if draws is None:
    return (edges[:-1] + edges[1:]) // 2
  return edges[:-1] + (draws * (np.diff(edges) + 1)).astype(np.int64)


def view_starts(views: int) -> list[float]:
  """Returns where evenly spaced views start, as fractions of the latest start.

  As in the official MoSI code: view i of n at i / n, a single view in the middle.
  """
  return [0.5] if views == 1 else [i / views for i in range(views)]


def clip_indices(
  num_frames: int, firsts: np.ndarray, *, frames: int, span: float
) -> np.ndarray:
  """Returns the frame numbers of clips, as in the official MoSI code.

  Args:
    num_frames: length of the video.
    firsts: [V] float, where the clips start.
    frames: length T of a clip.
    span: frames of the video that a clip covers.

  Returns:
    [V * T] int64; a video that is too short repeats its last frame.
  """
  times = np.linspace(firsts, firsts + span - 1, frames, axis=-1)
  return times.clip(0, num_frames - 1).astype(np.int64).reshape(-1)
