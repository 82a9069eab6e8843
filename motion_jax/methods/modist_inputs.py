"""The four clips that MoDist makes of a video: visual and motion, query and key.

Xiao et al., Modist: Motion Distillation for Self-supervised Video Representation
Learning, 2021, sections 3.1 and 4.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.ops import augment, crops, motion_inputs
from motion_jax.ops.draws import draw_by_row

ROLES = ("query", "key")
_SMALLEST = 7  # pixels: half of the blur's 13 taps, mirrored, and one


class Draws(NamedTuple):
  """The random choices behind the clips of a batch; its queries and keys are R rows.

  Fields:
    box: int32 [R, 4], crops of the visual clips.
    mirrored, gray: bool [R].
    jitter: augment.JitterFactors of shape [R, T].
    sigma: float32 [R], of the blur.
    motion_box: int32 [R, 4], crops of the motion clips.
  """

  box: jax.Array
  mirrored: jax.Array
  jitter: augment.JitterFactors
  gray: jax.Array
  sigma: jax.Array
  motion_box: jax.Array


class Inputs:
  """Crops, augmentation and motion inputs of a config.

  Args:
    config: a whole config; its `method` and `data` sections are read.
    motion: make motion clips too.

  Raises:
    UserError: for settings that cannot work together.
  """

  def __init__(self, config: ConfigDict, *, motion: bool):
    method, data = config.method, config.data
    self._method, self._motion = method, motion
    choose("data.sampler", data.sampler, ("distill",))
    choose("data.edge_scale", data.edge_scale, ("1", "10"))
    choose("method.motion", method.motion, (*motion_inputs.CHANNELS,))
    if method.motion == "frame_difference" and data.flow:
      raise UserError(
        "method.motion='frame_difference' is made of RGB frames: set data.flow=''"
      )
    room = min(*data.canvas, data.short_side)
    if room < method.size:
      raise UserError(
        f"a motion crop of method.size={method.size} pixels does not fit into "
        f"data.short_side={data.short_side}, data.canvas={tuple(data.canvas)}: make "
        "these larger; the paper's recipe has 224 of 256"
      )
    if method.size < _SMALLEST:
      raise UserError(
        f"method.size={method.size} is too small to be blurred: {_SMALLEST} or more"
      )
    self._edge_scale = float(data.edge_scale)
    self._names = ["video", "extent"]
    if motion:
      self._names.append("motion" if data.flow else "motion_pairs")
    self._check(tuple(data.canvas))

  def __call__(self, key: jax.Array, batch: dict) -> dict[str, jax.Array]:
    """Draws and makes the clips of a batch of the sampler 'distill'; see `render`."""
    return self.render(self.draw(key, _flat(batch["extent"])), batch)

  def first(self, key: jax.Array, batch: dict, count: int) -> dict[str, jax.Array]:
    """The first clips of a call; only of them are pixels made."""
    draws = jax.jit(self.draw)(key, _flat(batch["extent"]))
    count = min(count, len(batch["video"]))
    draws = jax.tree.map(lambda array: array[: 2 * count], draws)
    few = {name: batch[name][:count] for name in self._names}
    return jax.jit(self.render)(draws, few)

  def heldout(self, batch: dict) -> dict[str, jax.Array]:
    """As a call, but what a video gives depends on its `index` alone."""
    numbers = _flat(2 * batch["index"][:, None] + jnp.arange(2))
    key, extent = jax.random.key(0), _flat(batch["extent"])
    return self.render(draw_by_row(self.draw, key, numbers, extent), batch)

  def draw(self, key: jax.Array, extent: jax.Array) -> Draws:
    """Every clip gets its own crop and augmentation, one for all its frames.

    Args:
      key: PRNG key.
      extent: int32 [R, 2].
    """
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
        brightness=method.brightness,
        contrast=method.contrast,
        saturation=method.saturation,
        hue=method.hue,
        grayscale=0.0,  # after the colours, below
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

    Args:
      draws: of the rows of `batch`.
      batch: of the sampler 'distill'.

    Returns:
      visual_query, visual_key: [B, T, S, S, 3] normalised. With motion also
      motion_query, motion_key: [B, M, S, S, C].
    """
    # Queries and keys as rows of one batch: half as much to compile.
    rows = {name: _flat(batch[name]) for name in self._names}
    rows["turned"] = crops.is_turned(rows["extent"], rows["video"].shape[2:4])
    with jax.named_scope("visual_clips"):
      clips = {"visual": self._visual(draws, rows["video"], rows["turned"])}
    if self._motion:
      with jax.named_scope("motion_clips"):
        clips["motion"] = self._motion_clips(draws.motion_box, rows)
    return {
      f"{name}_{role}": clip.reshape(-1, 2, *clip.shape[1:])[:, index]
      for name, clip in clips.items()
      for index, role in enumerate(ROLES)
    }

  def _check(self, canvas):
    """Lets the operations refuse settings now instead of in the first step."""
    method = self._method
    frames = (1, 2, method.motion_frames)
    shapes = {
      "video": (1, 2, method.frames, *canvas, 3),
      "motion": (*frames, *canvas, 2 if method.motion == "flow" else 1),
      "motion_pairs": (*frames, 2, *canvas, 3),
    }
    batch = {name: jax.ShapeDtypeStruct(x, jnp.uint8) for name, x in shapes.items()}
    batch["extent"] = jax.ShapeDtypeStruct((1, 2, 2), jnp.int32)
    jax.eval_shape(self, jax.random.key(0), batch)

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

  def _motion_clips(self, box, rows):
    """A crop, and nothing else (section 4.1)."""
    method, extent = self._method, rows["extent"]
    options = dict(kind=method.motion, size=method.size, edge_scale=self._edge_scale)
    if "motion" in rows:
      return motion_inputs.stored_motion(
        rows["motion"], box, turned=rows["turned"], **options
      )
    return motion_inputs.computed_motion(
      rows["motion_pairs"],
      extent,
      box,
      warps=method.flow_warps,
      fixed_points=method.flow_fixed_points,
      iterations=method.flow_iterations,
      **options,
    )


def _flat(array):
  """[B, 2, ...] to [2 B, ...]."""
  return array.reshape(-1, *array.shape[2:])
