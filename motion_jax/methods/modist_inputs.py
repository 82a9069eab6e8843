"""The four clips that MoDist makes of a video: visual and motion, query and key.

Sections 3.1 and 4.1 of the paper. Queries and keys are R = 2 B rows of one batch, one
after the other: half as much to compile.
"""

import jax
from ml_collections import ConfigDict

from motion_jax.methods.base import jitter_of
from motion_jax.ops import augment, crops, motion_inputs

_ARRAYS = ("video", "extent", "motion", "motion_pairs")


def as_rows(batch: dict) -> dict[str, jax.Array]:
  """The arrays [B, 2, ...] of a batch of the sampler `Distill`, as [R, ...]."""
  arrays = {name: batch[name] for name in _ARRAYS if name in batch}
  return {name: array.reshape(-1, *array.shape[2:]) for name, array in arrays.items()}


class Inputs:
  """Crops, augmentation and motion inputs, as sections of a config have them."""

  def __init__(self, method: ConfigDict, data: ConfigDict):
    self._method, self._edge_scale = method, float(data.edge_scale)

  def draw(self, key: jax.Array, extent: jax.Array) -> dict:
    """Every clip [R] gets its own crop and augmentation, one for all its frames."""
    method, clips = self._method, (len(extent),)
    visual_key, motion_key = jax.random.split(key)
    keys = jax.random.split(visual_key, 5)
    return dict(
      box=crops.draw_resized_crops(
        keys[0], extent, area=tuple(method.area), aspect=tuple(method.aspect)
      ),
      mirrored=jax.random.bernoulli(keys[1], method.flip, clips),
      jitter=augment.draw_jitter(
        keys[2],
        (*clips, method.frames),
        **jitter_of(method) | dict(grayscale=0.0),  # after the colours, below
        per_frame=False,
        probability=method.jitter,
      ),
      gray=jax.random.bernoulli(keys[3], method.grayscale, clips),
      sigma=augment.draw_blur(
        keys[4], clips, sigma=tuple(method.blur_sigma), probability=method.blur
      ),
      motion_box=crops.draw_crops(motion_key, extent, size=method.size),
    )

  def render(self, rows: dict, draws: dict) -> dict[str, jax.Array]:
    """Makes the clips of given draws.

    Returns:
      visual_query, visual_key: [B, T, S, S, 3] normalised. With motion also
      motion_query, motion_key: [B, M, S, S, C].
    """
    turned = crops.is_turned(rows["extent"], rows["video"].shape[2:4])
    with jax.named_scope("visual_clips"):
      clips = {"visual": self._visual(rows["video"], turned, draws)}
    if {"motion", "motion_pairs"} & {*rows}:
      with jax.named_scope("motion_clips"):
        clips["motion"] = self._motion(rows, turned, draws["motion_box"])
    return {
      f"{name}_{role}": clip.reshape(-1, 2, *clip.shape[1:])[:, index]
      for name, clip in clips.items()
      for index, role in enumerate(("query", "key"))
    }

  def _visual(self, video, turned, draws):
    """Crop, colour jitter, grayscale, blur and mirror, in this order (section 4.1)."""
    method, box = self._method, draws["box"]
    # Mirrored with the crop, which is free: what follows treats both sides alike.
    video = crops.resize_crops(
      video, box, size=method.size, flip=draws["mirrored"], turned=turned
    )
    video = augment.apply_jitter(video, draws["jitter"])
    video = augment.to_grayscale(video, draws["gray"])
    video = augment.gaussian_blur(video, draws["sigma"])
    return augment.normalize(video, method.mean, method.std)

  def _motion(self, rows, turned, box):
    """A crop, and nothing else (section 4.1)."""
    method = self._method
    options = dict(kind=method.motion, size=method.size, edge_scale=self._edge_scale)
    if "motion" in rows:
      return motion_inputs.stored_motion(rows["motion"], box, turned=turned, **options)
    return motion_inputs.computed_motion(
      rows["motion_pairs"],
      rows["extent"],
      box,
      warps=method.flow_warps,
      fixed_points=method.flow_fixed_points,
      iterations=method.flow_iterations,
      **options,
    )
