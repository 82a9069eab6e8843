"""Decodes chosen frames of a video file, found by time stamp and not by counting.

Frame i of a video of n frames is the picture shown at `first + i * (last - first) /
(n - 1)`, where `first` and `last` are the time stamps of the first and last picture.
For a constant rate that is the i-th picture; for a variable rate the pictures are
sampled evenly in time. Pictures come out upright, with square pixels, as RGB.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import av
import numpy as np

from motion_jax.data import timeline
from motion_jax.data.decoder import Decoder, Media
from motion_jax.data.sources import DecodeError, decode_errors


class VideoReader:
  """An open video; a context manager that gives its length, its rate and frames."""

  def __init__(self, media: Media):
    """Opens a video.

    Args:
      media: a path, or the bytes of a video file.

    Raises:
      DecodeError: if the file cannot be opened or holds no video frames.
    """
    self._passed = None  # pictures that counting has passed by
    with decode_errors():
      self._decoder = Decoder(media)
      try:
        line = timeline.from_header(self._decoder.container, self._decoder.stream)
        if line is None and not self._decoder.probed:
          self._decoder.probe()
          line = timeline.from_header(self._decoder.container, self._decoder.stream)
        self._timeline = line or self._from_packets()
      except BaseException:
        self._decoder.close()
        raise

  def __enter__(self) -> VideoReader:
    return self

  def __exit__(self, *exc) -> None:
    self._decoder.close()

  @property
  def num_frames(self) -> int:
    return self._timeline.count

  @property
  def fps(self) -> float:
    """Average frames per second."""
    return self._timeline.fps

  def read(
    self,
    indices: Sequence[int],
    convert: Callable[[np.ndarray], np.ndarray] = lambda frame: frame,
  ) -> list[np.ndarray]:
    """Decodes the frames with the given numbers, in the given order.

    Args:
      indices: [T] frame numbers in [0, num_frames), repeats allowed.
      convert: is applied to every frame as soon as it is decoded, so that large ones
        need not be in memory together; its result must not be changed later.

    Returns:
      T times [H, W, 3] uint8, RGB; repeats are one array.

    Raises:
      DecodeError: if one of the frames cannot be decoded.
    """
    self._convert = convert
    with decode_errors():
      return self._read(np.asarray(indices, np.int64))

  def frames(self, short_side: int | None = None) -> Iterator[np.ndarray]:
    """Decodes the whole video once, in order.

    Args:
      short_side: largest length of the shorter side in pixels; larger frames are
        reduced to it by averaging, and sides become even. None keeps the size.

    Yields:
      `num_frames` times [H, W, 3] uint8, RGB, all of one size.

    Raises:
      DecodeError: where the file is damaged, after the frames before the damage.
    """
    with decode_errors():
      if self._timeline.from_header:
        self._timeline = self._from_packets()
      self._decoder.rewind()
      self._passed, shape = None, None
      for frame in self._in_order(short_side):
        shape = shape or frame.shape
        if frame.shape != shape:
          raise DecodeError(f"the size becomes {frame.shape[:2]}")
        yield frame

  def _in_order(self, short_side: int | None) -> Iterator[np.ndarray]:
    count = self.num_frames
    times = range(count)
    if self._timeline.pts is not None:
      times = self._timeline.times(np.arange(count)).tolist()
    shown = 0
    for number, frame in enumerate(self._decoder.pictures()):
      pts = number if self._timeline.pts is None else frame.pts
      image = None
      while shown < count and times[shown] == pts:
        image = self._decoder.to_rgb(frame, short_side) if image is None else image
        yield image
        shown += 1
      if shown < count and pts is not None and times[shown] < pts:
        break
    if shown < count:
      raise DecodeError(f"only {shown} of {count} frames can be decoded")

  def _read(self, indices: np.ndarray) -> list[np.ndarray]:
    if self._timeline.pts is not None:
      targets = self._timeline.times(indices)
      found = self._decode_times(np.unique(targets))
      if found is None and self._timeline.from_header:
        self._timeline = self._from_packets()
        if self.num_frames <= indices.max():
          raise DecodeError(f"only {self.num_frames} frames can be decoded")
        return self._read(indices)
    else:
      targets = indices
      found = self._decode_counting(np.unique(targets))
    if found is None:
      raise DecodeError("a frame is missing: the file is damaged or cut off")
    return [found[int(target)] for target in targets]

  def _from_packets(self) -> timeline.Timeline:
    """Takes the time line from the packets, less pictures that do not come out.

    Of a file that was cut at a key frame, pictures that are shown before it may refer
    to others that are gone. Only the beginning is decoded to find out.
    """
    decoder = self._decoder
    decoder.rewind() if decoder.probed else decoder.probe()
    line = timeline.from_packets(decoder.packets(), decoder.container, decoder.stream)
    decoder.rewind()
    if line.first_key:
      key = line.pts[line.first_key]
      early = itertools.takewhile(
        lambda frame: frame.pts is None or frame.pts < key, decoder.pictures()
      )
      line = line.with_first_pictures({frame.pts for frame in early})
    elif line.pts is None and self._loses_first_pictures():
      decoder.rewind()
      line = dataclasses.replace(line, count=sum(1 for _ in decoder.pictures()))
    if not line.count:
      raise DecodeError("no frame can be decoded")
    decoder.rewind()
    return line

  def _loses_first_pictures(self) -> bool:
    """Decodes up to the second key frame: does less come out than goes in?"""
    sent = 0

    def first_packets():
      nonlocal sent
      keys = 0
      for packet in self._decoder.packets():
        keys += packet.is_keyframe
        if keys > 1:
          yield av.Packet()  # the decoder hands out what it holds back
          return
        sent += packet.size > 0
        yield packet

    return sum(1 for _ in self._decoder.pictures(first_packets())) < sent

  def _decode_times(self, targets: np.ndarray) -> dict[int, np.ndarray] | None:
    """Decodes the pictures with the sorted time stamps; None if one is missing."""
    decoder, found, seek = self._decoder, {}, None
    try:
      for run, seek in self._timeline.runs(targets, decoder.stream, decoder.fresh):
        if seek is not None:
          decoder.seek(seek)
        self._decode_run(run, found, skips=True)
    except av.FFmpegError:
      if seek is None:
        raise
    if len(found) < len(targets) and not self._timeline.from_header:
      # Seeks can land behind the picture, or fail: roll forward from the start.
      decoder.rewind()
      found = {}
      self._decode_run(targets.tolist(), found)
    return found if len(found) == len(targets) else None

  def _decode_run(
    self, run: list[int], found: dict[int, np.ndarray], *, skips: bool = False
  ) -> None:
    """Rolls forward until the pictures of `run` are in `found`, or passed by."""
    wanted, missing = set(run), len(run)
    sizes = self._timeline.sizes
    for frame in self._decoder.pictures(wanted=wanted, skips=skips, sizes=sizes):
      if frame.pts in wanted and frame.pts not in found:
        found[frame.pts] = self._convert(self._decoder.to_rgb(frame))
        missing -= 1
      if missing == 0 or (frame.pts is not None and frame.pts > run[-1]):
        return

  def _decode_counting(self, targets: np.ndarray) -> dict[int, np.ndarray] | None:
    """Decodes on and counts, for streams without usable time stamps."""
    if self._decoder.fresh or self._passed is None or targets[0] < self._passed:
      self._decoder.rewind()
      self._counted, self._passed = enumerate(self._decoder.pictures()), 0
    wanted = set(targets.tolist())
    found = {}
    for number, frame in self._counted:
      self._passed = number + 1
      if number in wanted:
        found[number] = self._convert(self._decoder.to_rgb(frame))
        if len(found) == len(wanted):
          return found
    return None
