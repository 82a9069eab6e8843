"""The four clips that MoDist makes of a video: visual and motion, query and key.

Sections 3.1 and 4.1 of the paper; see `modist`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from motion_jax.methods.base import jitter_of
from motion_jax.ops import augment, crops, motion_inputs
from motion_jax.ops.draws import draw_by_row


class Draws(NamedTuple):
  """The random choices behind the clips of a batch; its queries and keys are R rows."""

  box: jax.Array  # int32 [R, 4], crops of the visual clips
  mirrored: jax.Array  # bool [R]
  jitter: augment.JitterFactors  # of shape [R, T]
  gray: jax.Array  # bool [R]
  sigma: jax.Array  # float32 [R], of the blur
  motion_box: jax.Array  # int32 [R, 4], crops of the motion clips


class Inputs:
  """Crops, augmentation and motion inputs.

  Args:
    method, data: sections of a config.
    motion: make motion clips too.
  """

  def __init__(self, method: ConfigDict, data: ConfigDict, *, motion: bool):
    self._method, self._edge_scale = method, float(data.edge_scale)
    of_motion = "motion" if data.flow else "motion_pairs"
    self._names = ["video", "extent", *[of_motion] * motion]

  def __call__(self, key: jax.Array, batch: dict) -> dict[str, jax.Array]:
    """Draws and makes the clips of a batch of the sampler `Distill`; see `render`."""
    return self.render(self.draw(key, _flat(batch["extent"])), batch)

  def first(self, key: jax.Array, batch: dict, count: int) -> dict[str, jax.Array]:
    """The first clips of a call; only of them are pixels made."""
    draws = jax.jit(self.draw)(key, _flat(batch["extent"]))
    few = {name: batch[name][:count] for name in self._names}
    count = len(few["video"])
    return jax.jit(self.render)(jax.tree.map(lambda x: x[: 2 * count], draws), few)

  def heldout(self, batch: dict) -> dict[str, jax.Array]:
    """As a call, but what a video gives depends on its `index` alone."""
    numbers = _flat(2 * batch["index"][:, None] + jnp.arange(2))
    key, extent = jax.random.key(0), _flat(batch["extent"])
    return self.render(draw_by_row(self.draw, key, numbers, extent), batch)

  def draw(self, key: jax.Array, extent: jax.Array) -> Draws:
    """Every clip [R] gets its own crop and augmentation, one for all its frames."""
    method, clips = self._method, (len(extent),)
    visual_key, motion_key = jax.random.split(key)
    keys = jax.random.split(visual_key, 5)
    return Draws(
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

  def render(self, draws: Draws, batch: dict) -> dict[str, jax.Array]:
    """Makes the clips of given draws.

    Returns:
      visual_query, visual_key: [B, T, S, S, 3] normalised. With motion also
      motion_query, motion_key: [B, M, S, S, C].
    """
    # Queries and keys as rows of one batch: half as much to compile.
    rows = {name: _flat(batch[name]) for name in self._names}
    turned = crops.is_turned(rows["extent"], rows["video"].shape[2:4])
    with jax.named_scope("visual_clips"):
      clips = {"visual": self._visual(draws, rows["video"], turned)}
    with jax.named_scope("motion_clips"):  # a crop, and nothing else (section 4.1)
      method, box = self._method, draws.motion_box
      options = dict(kind=method.motion, size=method.size, edge_scale=self._edge_scale)
      if "motion" in rows:
        stored = rows["motion"]
        clips["motion"] = motion_inputs.stored_motion(
          stored, box, turned=turned, **options
        )
      if "motion_pairs" in rows:
        clips["motion"] = motion_inputs.computed_motion(
          rows["motion_pairs"],
          rows["extent"],
          box,
          warps=method.flow_warps,
          fixed_points=method.flow_fixed_points,
          iterations=method.flow_iterations,
          **options,
        )
    return {
      f"{name}_{role}": clip.reshape(-1, 2, *clip.shape[1:])[:, index]
      for name, clip in clips.items()
      for index, role in enumerate(("query", "key"))
    }

  def _visual(self, draws, video, turned):
    """Crop, colour jitter, grayscale, blur and mirror, in this order (section 4.1)."""
    method = self._method
    # Mirrored with the crop, which is free: what follows treats both sides alike.
    video = crops.resize_crops(
      video, draws.box, size=method.size, flip=draws.mirrored, turned=turned
    )
    video = augment.apply_jitter(video, draws.jitter)
    video = augment.to_grayscale(video, draws.gray)
    video = augment.gaussian_blur(video, draws.sigma)
    return augment.normalize(video, method.mean, method.std)


def _flat(array):
  """[B, 2, ...] to [2 B, ...]."""
  return array.reshape(-1, *array.shape[2:])
