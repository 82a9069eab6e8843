"""Maps of where the networks of a run look, beside the motion of the clips."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.inputs import feature_views
from motion_jax.data.sources import Source
from motion_jax.evaluation.measures import gradcam
from motion_jax.ops import augment, crops
from motion_jax.ops.flow import variational_flow
from motion_jax.scale import sharding

_BACKGROUND_FRAMES = 32  # whose median is the background


class Viewer(nnx.Module):
  """An encoder and its classifiers; without any, attention takes Grad-CAM's place.

  Args:
    encoder, heads: see `gradcam.class_maps`.
    still: the classes against which motion is explained; None: the predicted classes
      are.
  """

  def __init__(
    self,
    encoder: nnx.Module,
    heads: list[nnx.Module],
    still: tuple[int, ...] | None = None,
  ):
    self.encoder = encoder
    self.heads = nnx.List(heads)
    self.still = still

  def __call__(self, video: jax.Array, *, stage: str) -> tuple[jax.Array, jax.Array]:
    """Maps of [B, T, H, W, 3] normalised video, at its size, and classes [B, heads]."""
    maps, labels = self.cells(video, stage=stage)
    return gradcam.upsample(maps, video.shape[1:4]), labels

  def cells(self, video: jax.Array, *, stage: str) -> tuple[jax.Array, jax.Array]:
    """The same with maps [B, T', H', W'] of the stage's own size."""
    if self.heads:
      options = dict(stage=stage, still=self.still)
      return gradcam.class_maps(self.encoder, self.heads, video, **options)
    maps = gradcam.attention_maps(self.encoder, video, stage=stage)
    return maps, jnp.zeros((len(video), 0), jnp.int32)


@dataclasses.dataclass(frozen=True)
class ClipMaps:
  """What the networks do with a batch of clips.

  Attributes:
    positions: [B] places of the videos in the source.
    clips: [B, T, S, S, 3] uint8, what the networks see.
    speed: [B, T, S, S], length of the flow to the next frame, in pixels.
    background: [B, S, S, 3] uint8, the median of frames of the whole video; or None.
    maps: by network [B, T, S, S], 0 or more.
    cells: (T', H', W'), what the maps had before they were enlarged.
  """

  positions: np.ndarray
  clips: np.ndarray
  speed: np.ndarray
  background: np.ndarray | None
  maps: dict[str, np.ndarray]
  cells: tuple[int, int, int]


def clip_maps(
  viewers: Mapping[str, Viewer],
  source: Source,
  config: ConfigDict,
  mesh: Mesh,
  *,
  stage: str,
  size: int,
  with_background: bool = False,
) -> Iterator[ClipMaps]:
  """Yields the maps of the clip in the middle of every video that can be decoded.

  Args:
    viewers: networks of one structure, by name.
    source: the videos.
    config: a whole config; `data`, `method` and `eval` say what a clip is.
    mesh: from `sharding.make_mesh`.
    stage: name of the stage looked at, 'conv1' to 'conv5'.
    size: side S of the clips in pixels.
    with_background: decodes what a camera that stands still has before it, too.

  Raises:
    UserError: if eval.batch_size is not positive.
  """
  split = {name: nnx.split(viewer) for name, viewer in viewers.items()}
  graphdef = next(iter(split.values()))[0]
  method, ratio = config.method, config.eval.crop_ratio

  @jax.jit
  def prepare(video, extent):
    boxes = crops.center_square(extent, ratio=ratio)
    clips = crops.resize_crops(video, boxes, size=size)
    shown = jnp.rint(255 * jnp.clip(clips, 0, 1)).astype(jnp.uint8)
    return augment.normalize(clips, method.mean, method.std), shown, _speed(clips)

  @jax.jit
  def view(arrays, clips):
    return nnx.merge(graphdef, arrays).cells(clips, stage=stage)[0]

  enlarged = jax.jit(gradcam.upsample, static_argnums=1)

  @jax.jit
  def median(video, extent):
    boxes = crops.center_square(extent, ratio=ratio)
    frames = crops.resize_crops(video, boxes, size=size)
    return jnp.rint(255 * jnp.median(frames, axis=1).clip(0, 1)).astype(jnp.uint8)

  def few_rows(batch):  # whole videos as float32 take gigabytes: one on each device
    for start in range(0, len(batch["video"]), mesh.size):
      part = slice(start, start + mesh.size)
      rows = {name: batch[name][part] for name in ("video", "extent")}
      yield sharding.shard_batch(mesh, rows)

  config = config.copy_and_resolve_references()
  config.eval.clips, config.method.size = 1, size
  options = dict(
    batch_size=sharding.evaluation_rows(config.eval.batch_size, mesh),
    seed=0,
    threads=config.data.threads,
  )
  backgrounds = itertools.repeat(None)
  if with_background:
    whole = _whole_video(config)
    backgrounds = evaluation_batches(source, whole, **options)  # the same videos
  batches = evaluation_batches(source, feature_views(config), **options)
  for batch, other in zip(batches, backgrounds, strict=False):
    rows = {name: batch[name] for name in ("video", "extent")}
    clips, shown, speed = prepare(**sharding.shard_batch(mesh, rows))
    maps = {name: view(arrays, clips) for name, (_, arrays) in split.items()}
    cells = next(iter(maps.values())).shape[1:]
    maps = {name: enlarged(coarse, clips.shape[1:4]) for name, coarse in maps.items()}
    background, good = None, batch["valid"]
    if other is not None:
      good = good & other["valid"]
      background = np.concatenate([median(**rows) for rows in few_rows(other)])
    found = batch["index"], *jax.device_get((shown, speed, background, maps))
    found = jax.tree.map(lambda array, good=good: array[good], found)
    yield ClipMaps(*found, cells=cells)


def _whole_video(config):
  """The sampler of frames from all over a video, prepared as those of its clips."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.method.segments, config.method.frames = True, _BACKGROUND_FRAMES
  return feature_views(config)


def _speed(clips):
  """Length [B, T, S, S] of the flow from every frame of [B, T, S, S, 3] to the next.

  The last frame has none and repeats that of the one before.
  """
  length = clips.shape[1]
  if length == 1:
    return jnp.zeros(clips.shape[:-1])
  first, second = (
    part.reshape(-1, *part.shape[2:]) for part in (clips[:, :-1], clips[:, 1:])
  )
  flow = variational_flow(first, second)
  speed = jnp.linalg.norm(flow, axis=-1)
  speed = speed.reshape(len(clips), length - 1, *speed.shape[1:])
  return jnp.concatenate([speed, speed[:, -1:]], axis=1)
