"""The four clips that motion distillation takes from a video: RGB and motion, twice.

Xiao et al., MoDist: Motion Distillation for Self-supervised Video Representation
Learning, 2021, sections 3.1 and 3.2.
"""

from __future__ import annotations

import logging

import numpy as np

from motion_jax.config import UserError, choose
from motion_jax.data.clips import Clip
from motion_jax.data.flow_files import Head
from motion_jax.data.flow_records import FlowRecords
from motion_jax.data.frame_numbers import clip_indices
from motion_jax.data.media import place, read_record, resized_shape
from motion_jax.data.sources import Record

logger = logging.getLogger("motion_jax")

CLIPS = 2  # query and key


class Distill(Clip):
  """Query and key clips of RGB frames and of motion, each from its own time.

  Motion comes from a prepared set, or is left to the device, which then gets pairs of
  RGB frames. Of prepared motion only windows whose mean edge strength over the frames
  taken reaches a threshold are drawn, all alike; if none does, the strongest is taken.
  The RGB and the motion frames of a query (or key) lie alike on their canvases.
  """

  def __init__(
    self,
    frames: int,
    interval: int,
    *,
    motion_frames: int,
    motion_interval: int,
    flow: FlowRecords | None = None,
    flow_interval: int = 5,
    threshold: float = 0.0,
    edge_scale: str = "1",
    synchronised: bool = False,
    **sizes,
  ):
    """Fixes pace, sizes and the choice of windows.

    Args:
      frames: length T of an RGB clip.
      interval: frames from one RGB frame to the next, at the rate `fps`.
      motion_frames: length M of a motion clip; 0 for RGB clips alone.
      motion_interval: as `interval`, of motion frames.
      flow: prepared motion; None for pairs of RGB frames.
      flow_interval: distance of the frames of a pair; near the start of a video the
        second is its first frame.
      threshold: gamma, the least mean edge strength of a motion clip; 0 admits all.
      edge_scale: "1" or "10", of `threshold` and of the strengths returned: edges are
        in [0, 1] or in [0, 10].
      synchronised: all four clips begin at one time, that of a motion window.
      **sizes: short_side, canvas and fps, as for `Clip`.
    """
    super().__init__(frames, interval, **sizes)
    if motion_frames < 0 or min(motion_interval, flow_interval) < 1 or threshold < 0:
      raise UserError(
        f"motion clips of {motion_frames} frames at interval {motion_interval}, flow "
        f"over {flow_interval} frames, threshold {threshold}: intervals must be at "
        "least 1, the others 0 or more"
      )
    self._scale = float(choose("data.edge_scale", edge_scale, ("1", "10")))
    if threshold > 0 and motion_frames and flow is None:
      logger.warning(
        "data.motion_threshold=%g has no effect with data.flow='': the strength of "
        "motion is known only of prepared motion",
        threshold,
      )
    self.motion_frames, self.motion_interval = motion_frames, motion_interval
    self.flow, self.flow_interval = flow, flow_interval
    self.threshold, self.synchronised = threshold, synchronised

  def __call__(self, record: Record, rng: np.random.Generator) -> dict:
    """Decodes the clips.

    Returns:
      video: [2, T, H, W, 3] uint8, query and key, zero outside the frames.
      extent: [2, 2] int32, height and width of the frames in each.
      motion: with a prepared set, [2, M, H, W, 1 or 2] uint8, encoded as in
        `motion_codec`; flow stays in pixels of the stored resolution.
      motion_pairs: without, [2, M, 2, H, W, 3] uint8, RGB at t and t - flow_interval.
      strength: [2] float32, mean of the frames of each motion clip; 0 if unknown.
      pass_rate: float32 [], share of the video's motion windows that reach the
        threshold; 0: the strongest stands in; 1 if unknown.

    Raises:
      DecodeError: if one of the frames cannot be decoded, or the prepared motion is of
        another version of the video.
    """
    draws, places = rng.random((2, CLIPS)), rng.random((CLIPS, 2))
    prepared = self.motion_frames and self.flow is not None
    head = self.flow.head(record.id) if prepared else None
    out, plan = self.empty(), {}

    def choose_frames(count, fps):
      self._warn_if_short(record, count, fps)
      plan.update(self._plan(head, count, fps, draws))
      return np.concatenate([plan["visual"], plan["pairs"].ravel()])

    frames = read_record(record, choose_frames, self.short_side)
    size = resized_shape(*frames[0].shape[:2], self.short_side)
    frames = iter(frames)
    targets = [out[name] for name in ("video", "motion_pairs") if name in out]
    for name in ("strength", "pass_rate"):
      out[name][...] = plan[name]
    for target in targets:
      for clip, extent, spot in zip(target, out["extent"], places, strict=True):
        slots = clip.reshape(-1, *clip.shape[-3:])
        self._fill(slots, extent, [next(frames) for _ in slots], spot)
    if prepared:
      for clip, indices, spot in zip(
        out["motion"], plan["motion"], places, strict=True
      ):
        frames = self.flow.frames(head, indices, size)
        for frame, slot in zip(frames, clip, strict=True):
          place(frame, slot, spot)
    return out

  def empty(self) -> dict:
    canvas, length = self.canvas, self.motion_frames
    arrays = {
      "video": np.zeros((CLIPS, self.frames, *canvas, 3), np.uint8),
      "extent": np.zeros((CLIPS, 2), np.int32),
      "strength": np.zeros(CLIPS, np.float32),
      "pass_rate": np.ones((), np.float32),
    }
    if not length:
      return arrays
    if self.flow is None:
      shape = (CLIPS, length, 2, *canvas, 3)
      return arrays | {"motion_pairs": np.zeros(shape, np.uint8)}
    shape = (CLIPS, length, *canvas, self.flow.channels)
    return arrays | {"motion": np.zeros(shape, np.uint8)}

  def _plan(self, head: Head | None, count: int, fps: float, draws: np.ndarray) -> dict:
    """Chooses the frames.

    Args:
      head: of the prepared motion, if any.
      count: frames of the video.
      fps: its rate.
      draws: [2, 2] uniform in [0, 1): times of RGB and of motion, query and key.

    Returns:
      visual [2 T], motion [2, M], pairs [2, M, 2] (nothing with prepared motion), all
      frame numbers; strength [2], pass_rate [].
    """
    if self.synchronised:
      draws = draws[:, [0, 0]]
    span = self.span(fps)
    firsts = max(count - span, 0) * draws[0]
    plan = {"strength": 0.0, "pass_rate": 1.0, "pairs": np.zeros(0, np.int64)}
    if self.motion_frames:
      if head is None:
        strengths = np.zeros(count, np.float32)
      else:
        head.check(count)
        strengths = head.strengths * self._scale
      windows = self._windows(len(strengths), fps)
      threshold = 0.0 if head is None else self.threshold
      means = strengths[windows].mean(-1)
      rows = choose_windows(means, threshold, draws[1])
      plan["strength"] = means[rows]
      plan["pass_rate"] = (means >= threshold).mean()
      plan["motion"] = windows[rows]
      if self.synchronised:
        firsts = rows
      if head is None:
        earlier = np.maximum(plan["motion"] - self.flow_interval, 0)
        plan["pairs"] = np.stack([plan["motion"], earlier], -1)
    visual = clip_indices(count, firsts, frames=self.frames, span=span)
    return plan | {"visual": visual}

  def _windows(self, count: int, fps: float) -> np.ndarray:
    """[S, M] frame numbers of the motion clips that start at frames 0, 1, ... S - 1."""
    span = self.motion_frames * self.motion_interval * self.span(fps)
    span /= self.frames * self.interval
    longest = max(span, self.span(fps)) if self.synchronised else span
    firsts = np.arange(int(max(count - longest, 0)) + 1)
    frames = clip_indices(count, firsts, frames=self.motion_frames, span=span)
    return frames.reshape(len(firsts), -1)


def choose_windows(
  means: np.ndarray, threshold: float, draws: np.ndarray
) -> np.ndarray:
  """Draws windows among those that reach a threshold, or takes the strongest.

  Args:
    means: [S] strength of every window.
    threshold: the least strength.
    draws: [N] uniform in [0, 1).

  Returns:
    [N] numbers of the windows drawn.
  """
  allowed = np.flatnonzero(means >= threshold)
  if not len(allowed):
    allowed = np.array([means.argmax()])
  return allowed[(np.asarray(draws) * len(allowed)).astype(np.int64)]
