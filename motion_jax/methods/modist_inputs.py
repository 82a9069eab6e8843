"""The four clips that MoDist makes of a video: visual and motion, query and key.

Xiao et al., Modist: Motion Distillation for Self-supervised Video Representation
Learning, 2021, sections 3.1 and 4.1.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.ops import augment, crops, motion_inputs

ROLES = ("query", "key")


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
    if len(method.mean) != 3 or len(method.std) != 3:
      raise UserError("method.mean and method.std must have 3 values")
    self._edge_scale = float(data.edge_scale)
    self._check(data)

  def __call__(self, key: jax.Array, batch: dict) -> dict[str, jax.Array]:
    """Makes the clips of a batch of the sampler 'distill'.

    Every clip has its own crop; a crop and an augmentation hold for all its frames.

    Returns:
      visual_query, visual_key: [B, T, S, S, 3] normalised. With motion also
      motion_query, motion_key: [B, M, S, S, C].
    """
    clips = {}
    for index, role in enumerate(ROLES):
      visual_key, motion_key = jax.random.split(jax.random.fold_in(key, index))
      extent = batch["extent"][:, index]
      with jax.named_scope("visual_clip"):
        video = batch["video"][:, index]
        clips[f"visual_{role}"] = self._visual(visual_key, video, extent)
      if self._motion:
        with jax.named_scope("motion_clip"):
          clip = self._motion_clip(motion_key, batch, extent, index)
          clips[f"motion_{role}"] = clip
    return clips

  def _check(self, data):
    """Lets the operations refuse settings now instead of in the first step."""
    method, canvas = self._method, tuple(data.canvas)
    shapes = {"video": (1, 2, method.frames, *canvas, 3)}
    frames = (1, 2, method.motion_frames)
    if not data.flow:
      shapes["motion_pairs"] = (*frames, 2, *canvas, 3)
    elif self._motion:
      shapes["motion"] = (*frames, *canvas, 2 if method.motion == "flow" else 1)
    batch = {k: jax.ShapeDtypeStruct(v, jnp.uint8) for k, v in shapes.items()}
    batch["extent"] = jax.ShapeDtypeStruct((1, 2, 2), jnp.int32)
    jax.eval_shape(self, jax.random.key(0), batch)

  def _visual(self, key, video, extent):
    """Crop, colour jitter, grayscale, blur and mirror, in this order (section 4.1)."""
    method, clips = self._method, (len(video),)
    keys = jax.random.split(key, 5)
    box = crops.draw_resized_crops(
      keys[0], extent, area=tuple(method.area), aspect=tuple(method.aspect)
    )
    # Mirrored with the crop, which is free: what follows treats both sides alike.
    mirrored = jax.random.bernoulli(keys[1], method.flip, clips)
    video = crops.resize_crops(video, box, size=method.size, flip=mirrored)
    video = augment.color_jitter(
      keys[2],
      video,
      brightness=method.brightness,
      contrast=method.contrast,
      saturation=method.saturation,
      hue=method.hue,
      grayscale=0.0,  # after the colours, below
      per_frame=False,
      probability=method.jitter,
    )
    gray = jax.random.bernoulli(keys[3], method.grayscale, clips)
    video = augment.to_grayscale(video, gray)
    sigma = augment.draw_blur(
      keys[4], clips, sigma=tuple(method.blur_sigma), probability=method.blur
    )
    video = augment.gaussian_blur(video, sigma)
    return augment.normalize(video, method.mean, method.std)

  def _motion_clip(self, key, batch, extent, index):
    """A crop, and nothing else (section 4.1)."""
    method = self._method
    box = crops.draw_crops(key, extent, size=method.size)
    options = dict(kind=method.motion, size=method.size, edge_scale=self._edge_scale)
    if "motion" in batch:
      return motion_inputs.stored_motion(batch["motion"][:, index], box, **options)
    return motion_inputs.computed_motion(
      batch["motion_pairs"][:, index],
      extent,
      box,
      warps=method.flow_warps,
      fixed_points=method.flow_fixed_points,
      iterations=method.flow_iterations,
      **options,
    )
