"""Compresses motion frames in threads, and tells how large and how exact they are."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future

import numpy as np

from motion_jax.data import flow_files, motion_codec

_EVERY = 13  # of so many frames one is measured: no multiple of usual lengths


class Encoder:
  """Called with a [H, W, C] uint8 frame, starts on it: a future of its bytes.

  Args:
    pool: threads that do the work.
    store: "edges" or "flow".
  """

  def __init__(self, pool: Executor, store: str):
    self._pool, self._store = pool, store
    self._count = 0
    # Of the measured frames: how many, their bytes, mean and largest errors in codes.
    self._measured, self._bytes, self._errors, self._largest = 0, 0, 0.0, 0
    self._lock = threading.Lock()

  def __call__(self, frame: np.ndarray) -> Future:
    encode = flow_files.encode_frame if self._count % _EVERY else self._measure
    self._count += 1
    return self._pool.submit(encode, frame)

  def summary(self) -> str:
    """A sentence about the frames that are done; '' if there are none."""
    if not self._measured:
      return ""
    limit = motion_codec.LIMITS[self._store]
    step = limit / motion_codec.STEPS[self._store]
    return (
      f"{self._bytes / self._measured / 1000:.1f} kB per frame; JPEG changes the "
      f"{self._store} by {self._errors / self._measured * step:.3f} on average and "
      f"{self._largest * step:.2f} at most, of {limit:g}, rounding up to "
      f"{step / 2:.2f} (1 of {_EVERY} frames measured)"
    )

  def _measure(self, frame):
    data = flow_files.encode_frame(frame)
    decoded = flow_files.decode_frame(data, frame.shape[2])
    change = np.abs(decoded.astype(np.int16) - frame)
    with self._lock:
      self._measured += 1
      self._bytes += len(data)
      self._errors += float(change.mean())
      self._largest = max(self._largest, int(change.max()))
    return data
