"""Features of whole videos: the mean of an encoder over evenly spaced clips."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.config import choose
from motion_jax.data.clips import Sampler
from motion_jax.data.sources import Source
from motion_jax.evaluation.parts import Parts
from motion_jax.evaluation.passes import value_of_each
from motion_jax.models.stages import STAGES
from motion_jax.ops import augment, crops
from motion_jax.scale import sharding


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of the videos of a source that could be decoded, by all processes.

  Attributes:
    features: [N, D] float32, the mean over the clips of each video.
    labels: [N] int32, -1 if unknown.
    positions: [N] int32, places of the videos in the source.
  """

  features: np.ndarray
  labels: np.ndarray
  positions: np.ndarray


class FeatureExtractor:
  """Applies encoders of one structure to videos; compiled once for all of them.

  Args:
    module: an encoder in evaluation mode; only its structure is kept.
    config: a whole config; `method` (size, mean, std) and `eval.crop_ratio` are read,
      and `eval.stage`, if given: the stage whose mean and standard deviation over
      frames and places are the features, in place of the encoder's own. (The mean
      alone loses what a small part of the picture excites.)
    mesh: from `sharding.make_mesh`.
    batch_size: clips per call, or the next multiple of the number of devices.
  """

  def __init__(self, module: nnx.Module, config: ConfigDict, mesh: Mesh, batch_size):
    graphdef, _ = nnx.split(module)
    method, ratio = config.method, config.eval.crop_ratio
    stage = config.eval.get("stage")
    if stage:
      choose("eval.stage", stage, STAGES)
    self._mesh, self._batch_size = mesh, sharding.evaluation_rows(batch_size, mesh)

    def encode(arrays, video, extent):
      boxes = crops.center_square(extent, ratio=ratio)
      video = crops.resize_crops(video, boxes, size=method.size)
      video = augment.normalize(video, method.mean, method.std)
      module = nnx.merge(graphdef, arrays)
      if stage:
        activation = module.until(video, stage).astype(jnp.float32)
        moments = activation.mean((1, 2, 3)), activation.std((1, 2, 3))
        return jnp.concatenate(moments, axis=-1)
      return module(video)

    rows, everywhere = sharding.split_rows(mesh), sharding.replicated(mesh)
    self._encode = jax.jit(
      encode, in_shardings=(everywhere, rows, rows), out_shardings=everywhere
    )

  def __call__(
    self,
    modules: Sequence[nnx.Module],
    source: Source,
    views: Sampler,
    *,
    threads: int | None = None,
    text: str = "features",
    parts: Parts | None = None,
    on_rows: Callable[[dict], None] = lambda rows: None,
  ) -> list[Features]:
    """Computes the features of a source, decoding every video once for all modules.

    Args:
      modules: encoders of the structure given before.
      source: the videos.
      views: which clips are taken.
      threads: that decode.
      text: for the progress bar.
      parts: of an earlier start, from which this one goes on.
      on_rows: is called with the rows of each batch that this process has decoded.

    Returns:
      One `Features` per module.
    """
    arrays = [nnx.split(module)[1] for module in modules]

    def encode(rows, batch):
      on_rows(rows)
      found = [self._encode(a, batch["video"], batch["extent"]) for a in arrays]
      return np.stack([*map(sharding.own_rows, found)], axis=1)

    options = dict(batch_size=self._batch_size, seed=0, threads=threads)
    positions, means = value_of_each(
      encode, source, views, self._mesh, text=text, parts=parts, **options
    )
    means = means.reshape(len(positions), len(arrays), *means.shape[2:] or (0,))
    labels = np.asarray(source.labels, np.int32)[positions]
    positions = positions.astype(np.int32)
    return [Features(mean, labels, positions) for mean in means.swapaxes(0, 1)]
