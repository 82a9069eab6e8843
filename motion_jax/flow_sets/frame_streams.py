"""Whole videos, decoded frame by frame in threads, ahead of who needs them."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from motion_jax.data import storage
from motion_jax.data.media import whole_video
from motion_jax.data.sources import DecodeError, Source

_AHEAD = 64  # frames of each video that are decoded at a time


class FrameStream:
  """The frames of one video.

  Attributes:
    id: of the record.
    damage: once all frames have been taken, why there are no more; '' if there are no
      more in the video.
  """

  def __init__(
    self, pool: concurrent.futures.Executor, source: Source, index: int, short_side: int
  ):
    self.id, self.damage = source.id_of(index), ""
    frames = self._decoded(source, index, short_side)
    self._part = lambda: pool.submit(lambda: [*itertools.islice(frames, _AHEAD)])
    self._ahead = self._part()

  def __iter__(self) -> Iterator[np.ndarray]:
    """Yields [H, W, 3] uint8, RGB, all of one size."""
    while part := self._ahead.result():
      self._ahead = self._part()
      yield from part

  def _decoded(self, source, index, short_side):
    record = None
    try:
      record = source[index]
      yield from whole_video(record, short_side)
    except (DecodeError, OSError) as error:
      storage.check_files(record)  # what its storage does not give is no damage
      self.damage = str(error) or type(error).__name__


def frame_streams(
  source: Source, indices: Iterable[int], *, short_side: int, threads: int
) -> Iterator[FrameStream]:
  """Yields the videos of a source in order; take all frames of one before the next.

  Args:
    source: where they come from.
    indices: which ones.
    short_side: see `media.whole_video`.
    threads: videos that are decoded at the same time.
  """
  rest, ahead = iter(indices), collections.deque()
  pool = concurrent.futures.ThreadPoolExecutor(threads)
  try:
    while True:
      for index in itertools.islice(rest, threads - len(ahead)):
        ahead.append(FrameStream(pool, source, index, short_side))
      if not ahead:
        return
      yield ahead.popleft()
  finally:
    pool.shutdown(cancel_futures=True)
