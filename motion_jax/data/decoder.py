"""Decodes the pictures of an open video file, from where it stands."""

from __future__ import annotations

import bisect
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import av
from av.stream import Disposition

from motion_jax.data import pixels
from motion_jax.data.sources import DecodeError

Media = bytes | str | os.PathLike

# From version 19 on, PyAV is always lenient with text that is not UTF-8.
_LENIENT = (
  {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_UNPROBED = {"skip_frame": "all", "analyzeduration": "1", "fpsprobesize": "0"}


class Decoder:
  """One stream of pictures and its decoder.

  Attributes:
    container, stream: PyAV's; others after `rewind`.
    to_rgb: makes images of the pictures; see `pixels.Converter`.
    fresh: nothing has been read since the file was opened.
    probed: it was opened as libavformat does by itself: several frames are decoded to
      find out what the header of an mp4 file tells, which takes as long as all else.
  """

  def __init__(self, media: Media):
    """Opens a file.

    Args:
      media: a path, or the bytes of a video file.

    Raises:
      DecodeError: if it holds no video.
      av.FFmpegError: if it cannot be opened.
    """
    self._media = media
    self.probed = not _is_mp4(media)
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
      self.to_rgb = pixels.Converter(self.stream, name)
    except BaseException:
      self.container.close()
      raise
    self.fresh = True

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
    keys: Sequence[int] = (),
    sizes: Mapping[int, int] | None = None,
  ) -> Iterator[av.VideoFrame]:
    """Decodes on from where the file stands.

    Args:
      packets: what to decode; None for all that follow.
      wanted: time stamps. If any are given, pictures that no other one refers to are
        left out unless wanted, and decoding ends with the last wanted one.
      keys: sorted time stamps of the key frames, if known: behind a wanted picture
        nothing is decoded up to the key frame before the next one.
      sizes: bytes of the key frame with each time stamp. If the first one met differs,
        there are no pictures: after a seek into MPEG-PS, times can be off by one.
    """
    context = self.stream.codec_context
    context.open(strict=False)  # libdav1d would never forget what was skipped before
    unsent, whole, key, came = set(wanted), True, None, False
    # Time stamps of the key frame behind us, and of the one to go on from.
    behind, start, left_out = -math.inf, _key_before(wanted, keys), False
    for packet in packets or self.packets():
      if packet.is_keyframe:
        behind = packet.pts if keys else behind
        if key is None:
          key = packet
          if sizes and sizes.get(key.pts) != key.size:
            return
      if start > behind and packet.size:
        left_out = True
        continue
      if left_out:
        left_out = False
        yield from context.decode(None)  # what it holds back; then it starts anew
        context.flush_buffers()
      is_wanted = not wanted or packet.pts in wanted
      if packet.pts in unsent:
        unsent.remove(packet.pts)
        start = _key_before(unsent, keys)
      if whole is not is_wanted:
        whole = is_wanted
        context.skip_frame = "DEFAULT" if whole else "NONREF"
      try:
        frames = context.decode(packet)
      except av.InvalidDataError:
        if _is_complete(packet, key, came):
          raise
        continue
      came = came or bool(frames)
      yield from frames
      if wanted and not unsent:
        if packet.size:
          yield from context.decode(None)
        return


def _key_before(times: Set[int], keys: Sequence[int]) -> float:
  """The time stamp of the key frame that the first picture is decoded from."""
  if not times or not keys:
    return -math.inf
  number = bisect.bisect_right(keys, min(times)) - 1
  return keys[number] if number >= 0 else -math.inf


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
