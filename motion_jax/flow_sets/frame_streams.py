"""Whole videos, decoded frame by frame in threads, ahead of who needs them."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np

from motion_jax.data.media import whole_video
from motion_jax.data.sources import DecodeError, Source

_AHEAD = 64  # frames that wait for each video; the rest of a long one is not held
_PATIENCE = 0.2  # seconds between looks whether to stop


class FrameStream:
  """The frames of one video.

  Attributes:
    id: of the record.
    damage: once all frames have been taken, why there are no more; '' if there are no
      more in the video.
  """

  def __init__(self, name: str, stop: threading.Event):
    self.id, self.damage = name, ""
    self._frames: queue.Queue = queue.Queue(_AHEAD)
    self._stop = stop

  def __iter__(self) -> Iterator[np.ndarray]:
    """Yields [H, W, 3] uint8, RGB, all of one size."""
    while isinstance(item := self._frames.get(), np.ndarray):
      yield item
    if isinstance(item, Exception):
      raise item
    self.damage = item

  def fill(self, source: Source, index: int, short_side: int) -> None:
    """Decodes a record into this stream; to be run in a thread."""
    end = ""
    try:
      for frame in whole_video(source[index], short_side):
        if not self._put(frame):
          return
    except (DecodeError, OSError) as error:
      end = str(error) or type(error).__name__
    except Exception as error:
      end = error  # raised where the frames are taken
    self._put(end)

  def _put(self, item) -> bool:
    while not self._stop.is_set():
      try:
        self._frames.put(item, timeout=_PATIENCE)
      except queue.Full:
        continue
      return True
    return False


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
  stop, rest, ahead = threading.Event(), iter(indices), collections.deque()
  pool = concurrent.futures.ThreadPoolExecutor(threads)
  try:
    while True:
      for index in itertools.islice(rest, threads - len(ahead)):
        ahead.append(FrameStream(source.id_of(index), stop))
        pool.submit(ahead[-1].fill, source, index, short_side)
      if not ahead:
        return
      yield ahead.popleft()
  finally:
    stop.set()
    pool.shutdown(cancel_futures=True)
