"""Pictures of MoDist's four clips: visual and motion, query and key, of some videos."""

import os
import pathlib

import cv2
import numpy as np

from motion_jax.visualize.clips import save_clip_grid, save_gif

ROWS = ("visual_query", "visual_key", "motion_query", "motion_key")
_VISIBLE = 0.995  # share of the motion's pixels that are darker than white


def save_pretext(
  path: str | os.PathLike, clips: dict[str, np.ndarray], *, kind: str, mean, std
) -> None:
  """Writes path.png and path.gif: for every video its clips, one row each.

  Motion clips are shown at as many, evenly spaced, frames as the visual ones have.

  Args:
    path: without suffix.
    clips: [N, T, H, W, 3] of visual_query and visual_key, normalised, and, if there is
      motion, [N, M, H, W, C] of motion_query and motion_key.
    kind: of motion: 'edges', 'flow' or 'frame_difference'.
    mean, std: undo the normalisation.
  """
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  length = clips["visual_query"].shape[1]
  names = [name for name in ROWS if name in clips]
  rows, titles = [], []
  for video in range(len(clips["visual_query"])):
    for name in names:
      clip = clips[name]
      if name.startswith("visual"):
        picture = np.clip(clip[video] * np.asarray(std) + np.asarray(mean), 0, 1)
        picture = np.rint(255 * picture).astype(np.uint8)
      else:
        picture = motion_pictures(clip[video], kind)
      shown = np.linspace(0, len(picture) - 1, length).round().astype(int)
      rows.append(picture[shown])
      titles.append(f"video {video}\n{name.replace('_', ' ')}")
  save_clip_grid(f"{path}.png", np.stack(rows), titles=titles)
  save_gif(f"{path}.gif", np.stack(rows))


def motion_pictures(clip: np.ndarray, kind: str) -> np.ndarray:
  """Motion [M, H, W, C] as pictures [M, H, W, 3] uint8, as bright as they can be.

  Edges are grey; of flow the direction is the hue and the length the brightness; no
  frame difference is grey.
  """
  if kind == "frame_difference":
    return np.rint(255 * np.clip(0.5 + clip / 2, 0, 1)).astype(np.uint8)
  strength = np.hypot(clip[..., 0], clip[..., 1]) if kind == "flow" else clip[..., 0]
  white = max(float(np.quantile(strength, _VISIBLE)), 1e-6)
  strength = np.rint(255 * np.clip(strength / white, 0, 1)).astype(np.uint8)
  if kind == "edges":
    return np.repeat(strength[..., None], 3, axis=-1)
  return flow_colours(clip, strength)


def flow_colours(flow: np.ndarray, brightness: np.ndarray) -> np.ndarray:
  """Pictures [T, H, W, 3] uint8 of flow [T, H, W, 2]: its direction is the hue.

  Args:
    flow: in any unit.
    brightness: [T, H, W] uint8.
  """
  angle = np.arctan2(flow[..., 1], flow[..., 0]) % (2 * np.pi)
  hue = (np.rint(angle * (90 / np.pi)) % 180).astype(np.uint8)
  colours = np.stack([hue, np.full_like(hue, 255), brightness], -1)
  return np.stack([cv2.cvtColor(frame, cv2.COLOR_HSV2RGB) for frame in colours])
