"""Features of whole videos: the mean of an encoder over evenly spaced clips."""

import dataclasses
import logging
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.data.clips import Sampler
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.sources import Source
from motion_jax.ops import augment, crops
from motion_jax.scale import hosts, sharding

logger = logging.getLogger("motion_jax")


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
    config: a whole config; `method` (size, mean, std) and `eval.crop_ratio` are read.
    mesh: from `sharding.make_mesh`.
    batch_size: clips per call, or the next multiple of the number of devices.
  """

  def __init__(self, module: nnx.Module, config: ConfigDict, mesh: Mesh, batch_size):
    graphdef, _ = nnx.split(module)
    method, ratio = config.method, config.eval.crop_ratio
    self._mesh, self._batch_size = mesh, sharding.evaluation_rows(batch_size, mesh)

    def encode(arrays, video, extent):
      boxes = crops.center_square(extent, ratio=ratio)
      video = crops.resize_crops(video, boxes, size=method.size)
      video = augment.normalize(video, method.mean, method.std)
      return nnx.merge(graphdef, arrays)(video)

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
    on_batch: Callable[[dict], None] = lambda batch: None,
  ) -> list[Features]:
    """Computes the features of a source, decoding every video once for all modules.

    Args:
      modules: encoders of the structure given before.
      source: the videos.
      views: which clips are taken.
      threads: that decode.
      on_batch: is called with every host batch, for accounts and progress.

    Returns:
      One `Features` per module.
    """
    arrays = [nnx.split(module)[1] for module in modules]
    sums, counts, damaged = {}, {}, set()
    for batch in evaluation_batches(
      source,
      views,
      batch_size=self._batch_size,
      seed=0,
      threads=threads,
      agree=hosts.agreed,
    ):
      on_batch(batch)
      rows = sharding.shard_batch(
        self._mesh, {name: batch[name] for name in ("video", "extent")}
      )
      encoded = jnp.stack(
        [self._encode(a, rows["video"], rows["extent"]) for a in arrays]
      )
      encoded = np.asarray(jax.device_get(encoded), np.float64)
      for row in np.flatnonzero(batch["valid"]):
        index = int(batch["index"][row])
        sums[index] = sums.get(index, 0.0) + encoded[:, row]
        counts[index] = counts.get(index, 0) + 1
      damaged.update(batch["index"][~batch["valid"]].tolist())
    positions = sorted(sums.keys() - damaged)
    means = np.asarray([sums[p] / counts[p] for p in positions], np.float32)
    means = means.reshape(-1, len(arrays), modules[0].features)
    positions = np.asarray(positions, np.int32)
    labels = np.asarray(source.labels, np.int32)[positions]
    return [Features(mean, labels, positions) for mean in means.swapaxes(0, 1)]
