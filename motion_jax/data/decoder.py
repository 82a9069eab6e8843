"""Decodes the pictures of an open video file, from where it stands."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Set

import av
import numpy as np
from av.stream import Disposition

from motion_jax.data import pixels
from motion_jax.data.sources import DecodeError

Media = bytes | str | os.PathLike

# From version 19 on, PyAV is always lenient with text that is not UTF-8.
_LENIENT = (
  {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_UNPROBED = {"skip_frame": "all", "analyzeduration": "1", "fpsprobesize": "0"}
_HELD = 300  # packets; most files have a key frame in that many


class Decoder:
  """One stream of pictures and its decoder.

  Attributes:
    container, stream: PyAV's; others after `rewind`.
    fresh: nothing has been read since the file was opened.
    probed: it was opened as libavformat does by itself: several frames are decoded to
      find out what the header of an mp4 file tells, which takes as long as all else.
  """

  def __init__(self, media: Media, *, probed: bool = False):
    """Opens a file.

    Args:
      media: a path, or the bytes of a video file.
      probed: see the attribute; files that are not mp4 always are.

    Raises:
      DecodeError: if it holds no video.
      av.FFmpegError: if it cannot be opened.
    """
    self._media = media
    self.probed = probed or not _is_mp4(media)
    self._open()

  def probe(self) -> None:
    """Opens the file again, and decodes its beginning to know what it does not tell."""
    self.close()
    self.probed = True
    self._open()

  def _open(self) -> None:
    media = self._media
    if isinstance(media, bytes):
      name, media = "a video", io.BytesIO(media)
    else:
      name = media = os.fspath(media)
    options = None if self.probed else _UNPROBED
    self.container = av.open(media, options=options, **_LENIENT)
    try:
      self.stream = _best_stream(self.container)
      self.stream.thread_type = "NONE"
      self._convert = pixels.Converter(self.stream, name)
    except BaseException:
      self.container.close()
      raise
    self.fresh, self._is_checked = True, self.probed

  def to_rgb(self, frame: av.VideoFrame, short_side: int | None = None) -> np.ndarray:
    """Makes an image of a picture; see `pixels.Converter`."""
    if not self._is_checked:
      self._is_checked = True
      if not self._convert.agrees_with(self.stream.codec_context):
        probed = Decoder(self._media, probed=True)
        self._convert = probed._convert
        probed.close()
    return self._convert(frame, short_side)

  def close(self) -> None:
    self.container.close()

  def rewind(self) -> None:
    """Goes back to the start, which for some formats only opening anew does."""
    if not self.fresh:
      self.close()
      self._open()

  def seek(self, time: int) -> None:
    """Goes to a key frame at or before a time, or somewhere else if there is none."""
    self.fresh = False
    self.container.seek(time, stream=self.stream)

  def packets(self) -> Iterator[av.Packet]:
    """Reads on from where the file stands; the last packet is empty."""
    self.fresh = False
    return self.container.demux(self.stream)

  def pictures(
    self,
    packets: Iterable[av.Packet] | None = None,
    *,
    wanted: Set[int] = frozenset(),
    skips: bool = False,
    sizes: Mapping[int, int] | None = None,
  ) -> Iterator[av.VideoFrame]:
    """Decodes on from where the file stands.

    Args:
      packets: what to decode; None for all that follow.
      wanted: time stamps. If any are given, pictures that no other one refers to are
        left out unless wanted, and decoding ends with the last wanted one.
      skips: between two wanted pictures, nothing is decoded up to the last key frame
        that is shown before the second one.
      sizes: bytes of the key frame with each time stamp. If the first one met differs,
        there are no pictures: after a seek into MPEG-PS, times can be off by one.
    """
    context = self.stream.codec_context
    context.open(strict=False)  # libdav1d would never forget what was skipped before
    unsent, whole, key, came = set(wanted), True, None, False
    held, left_out = [], False  # until it is known whether a key frame makes them vain
    for packet in packets or self.packets():
      if key is None and packet.is_keyframe:
        key = packet
        if sizes and sizes.get(key.pts) != key.size:
          return
      if skips and packet.size and unsent:
        if packet.is_keyframe and packet.pts is not None and packet.pts <= min(unsent):
          left_out, key = left_out or bool(held), packet
          held.clear()
        if packet.pts not in unsent and len(held) < _HELD:
          held.append(packet)
          continue
      if left_out:
        left_out = False
        yield from context.decode(None)  # what it holds back; then it starts anew
        context.flush_buffers()
      for sent in (*held, packet):
        is_wanted = not wanted or sent.pts in wanted
        unsent.discard(sent.pts)
        if whole is not is_wanted:
          whole = is_wanted
          context.skip_frame = "DEFAULT" if whole else "NONREF"
        try:
          frames = context.decode(sent)
        except av.InvalidDataError:
          if _is_complete(sent, key, came):
            raise
          continue
        came = came or bool(frames)
        yield from frames
        if wanted and not unsent:
          if sent.size:
            yield from context.decode(None)
          return
      held.clear()


def _is_complete(packet, key, came: bool) -> bool:
  """Tells whether a packet refers to nothing before the first key frame."""
  if key is None or packet.pts is None or key.pts is None:
    return came
  return packet.pts >= key.pts


def _is_mp4(media: Media) -> bool:
  if isinstance(media, bytes):
    return media[4:8] == b"ftyp"
  return os.fspath(media).lower().endswith((".mp4", ".m4v", ".mov"))


def _best_stream(container) -> av.VideoStream:
  """Returns the largest video stream; no cover and no track of thumbnails."""
  stills = Disposition.attached_pic | Disposition.timed_thumbnails
  streams = [s for s in container.streams.video if not s.disposition & stills]
  if not streams:
    raise DecodeError("no video stream")
  streams = [s for s in streams if s.codec_context is not None]
  if not streams:
    raise DecodeError("the codec of the video is not known")

  def rank(stream):
    context = stream.codec_context
    return stream.frames != 1, context.width * context.height

  return max(streams, key=rank)
