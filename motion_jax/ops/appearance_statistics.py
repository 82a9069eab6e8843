"""Where and in which colour a clip changes least and most (MAS, Wang et al., 2019).

Contract: video is uint8 [B, T, S, S, 3], RGB, S a multiple of 16. Labels count from 1,
as in the paper; the first of equal values wins.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.ops import partition

COLOURS = ("histogram", "exact")
# Colour codes 1 to 8: halves of the RGB cube.
COLOUR_NAMES = (
  *("blue", "cyan", "magenta", "white"),
  *("black", "green", "red", "yellow"),
)
LEVELS = 256


class AppearanceStatistics(NamedTuple):
  """Statistics of a clip's colours.

  Fields:
    stability: [B, 28], intersection over union of the colour histograms of all frames
      in each region of `partition`, in [0, 1]; 1 where nothing changes.
    colours: int32 [B, 29], the dominant colour code (0 to 7) of each region, and of
      the whole clip.
  """

  stability: jax.Array
  colours: jax.Array


def appearance_statistics(
  video: jax.Array, *, colour: str = "histogram"
) -> AppearanceStatistics:
  """Stability and dominant colour per region.

  Args:
    video: [B, T, S, S, 3] uint8.
    colour: 'histogram' takes the most frequent of the eight colours, as the paper
      writes; 'exact' the code of the most frequent RGB triple, as the code of the
      journal version does (slow: it sorts all pixels).
  """
  with jax.named_scope("appearance_statistics"):
    find = _most_frequent_code if colour == "histogram" else _code_of_mode
    return AppearanceStatistics(stability(video), find(video))


def appearance_labels(statistics: AppearanceStatistics) -> jax.Array:
  """The 13 labels of a clip.

  Args:
    statistics: from `appearance_statistics`.

  Returns:
    [B, 13] int32: for grid, rings, triangles in turn the least stable region, its
    colour, the most stable region, its colour; last the colour of the whole clip.
  """
  columns = []
  for region in partition.REGIONS.values():
    stability = statistics.stability[:, region]
    for best in (stability.argmin(-1), stability.argmax(-1)):
      colours = statistics.colours[:, region]
      columns += [best, jnp.take_along_axis(colours, best[:, None], -1)[:, 0]]
  columns.append(statistics.colours[:, -1])
  return jnp.stack(columns, 1).astype(jnp.int32) + 1


def stability(video: jax.Array) -> jax.Array:
  """Histogram intersection over union along time, mean of the three channels.

  Args:
    video: [B, T, S, S, 3] uint8.

  Returns:
    [B, 28] float32.
  """
  batch, frames, size = video.shape[:3]
  planes = jnp.moveaxis(video, -1, 0).reshape(3, batch, frames, size * size)
  # One channel at a time keeps the working set small: 115 instead of 165 ms of
  # processor time for 30 clips of 16x112x112.
  return jax.lax.map(lambda plane: _overlap(plane, size), planes).mean(0)


def histogram(values: jax.Array) -> jax.Array:
  """Counts the 256 levels along the last axis.

  Every bin compares all values, a loop that vector units run without a memory access:
  for the 18 million values of 30 clips 66 ms on 2 cores, where adding ones at
  computed places took 300 ms and products of one-hot nibbles 950 ms.

  Args:
    values: [..., P] uint8, P < 65536.

  Returns:
    [..., 256] uint8, or uint16 if P > 255.
  """
  count = values.shape[-1]
  dtype = jnp.uint8 if count <= 255 else jnp.uint16
  step = max(n for n in range(1, 17) if count % n == 0)
  levels = jnp.arange(LEVELS, dtype=jnp.uint8)

  def add(index, total):
    part = jax.lax.dynamic_slice_in_dim(values, index * step, step, -1)
    for i in range(step):
      total += (part[..., i, None] == levels).astype(dtype)
    return total

  start = jnp.zeros((*values.shape[:-1], LEVELS), dtype)
  return jax.lax.fori_loop(0, count // step, add, start)


def _overlap(plane, size):
  """Intersection over union [B, 28] of the histograms of one channel [B, T, P]."""
  groups, members = partition.cells(size)
  counts = []
  for pixels in groups:
    values = jnp.moveaxis(plane[..., pixels], -2, 0)
    counts.append(histogram(jax.lax.optimization_barrier(values)))
  counts = jnp.concatenate(counts)  # [96, B, T, 256]
  # Integer sums of whole cells, no matrix product: 40 instead of 170 ms.
  wide = jnp.uint16 if size <= 256 else jnp.uint32
  regions = [
    sum(counts[cell].astype(wide) for cell in np.flatnonzero(row)) for row in members
  ]
  regions = jax.lax.optimization_barrier(jnp.stack(regions))
  regions = jax.lax.optimization_barrier((regions.min(2), regions.max(2)))
  shared, joint = (counts.sum(-1, dtype=jnp.int32) for counts in regions)
  # GPUs divide to within 2 units of the last place: regions in which nothing changes
  # would no longer be alike, and labels not the first of them.
  return jnp.where(shared == joint, 1.0, shared / joint).T


def _codes(red, green, blue):
  """Colour codes 0 to 7 as uint8; `COLOUR_NAMES` has their names."""
  bits = (blue < 128, red >= 128, green >= 128)
  return sum(bit.astype(jnp.uint8) << 2 - i for i, bit in enumerate(bits))


def _most_frequent_code(video):
  """[B, 29] int32: by histograms of the eight colours."""
  batch, frames, size = video.shape[:3]
  codes = _codes(*jnp.moveaxis(video, -1, 0)).reshape(batch, 1, frames, -1)
  bins = jnp.arange(8, dtype=jnp.uint8)[:, None, None]
  votes = (codes == bins).sum(2, dtype=jnp.uint8 if frames <= 255 else jnp.uint16)
  counts = jnp.einsum(
    "bcp,rp->brc",
    jax.lax.optimization_barrier(votes.astype(jnp.float32)),
    _regions_and_whole(size).astype(np.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  return counts.argmax(-1).astype(jnp.int32)


def _code_of_mode(video):
  """[B, 29] int32: by the most frequent triple, of equal ones the smallest BGR."""
  batch, frames, size = video.shape[:3]
  red, green, blue = jnp.moveaxis(video, -1, 0).astype(jnp.int32)
  triples = (blue << 16 | green << 8 | red).reshape(batch, -1)
  pixel = jnp.tile(jnp.arange(size * size), frames)
  place = jnp.broadcast_to(pixel, triples.shape)
  triples, place = jax.lax.sort((triples, place), num_keys=1)
  ends = jnp.concatenate(
    [triples[:, 1:] != triples[:, :-1], jnp.ones((batch, 1), bool)], 1
  )

  def mode(region):
    """Triple with the longest run among the pixels of a region."""
    seen = jnp.cumsum(region[place], 1, dtype=jnp.int32)
    before = jax.lax.cummax(jnp.where(ends, seen, 0), axis=1)
    before = jnp.pad(before, [(0, 0), (1, 0)])[:, :-1]
    best = jnp.where(ends, seen - before, 0).argmax(-1)
    return jnp.take_along_axis(triples, best[:, None], 1)[:, 0]

  found = jax.lax.map(mode, jnp.asarray(_regions_and_whole(size))).T
  return _codes(found & 255, found >> 8 & 255, found >> 16).astype(jnp.int32)


def _regions_and_whole(size):
  """[29, S * S] bool: the 28 regions and the whole frame."""
  masks = partition.masks(size).reshape(28, -1)
  return np.concatenate([masks, np.ones((1, size * size), bool)])
