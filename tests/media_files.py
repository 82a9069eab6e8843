"""Small video files for the tests, each frame of which tells its own number."""

import io
import pathlib
from collections.abc import Callable

import av
import numpy as np

from motion_jax.data.video import VideoReader

_BITS = 6  # the number of a frame is written as black and white columns


def picture(number: int, height: int = 48, width: int = 96) -> np.ndarray:
  """Draws [height, width, 3] uint8: the number in binary, over a darker lower half."""
  bits = [(number >> bit) & 1 for bit in range(_BITS)]
  columns = np.repeat(np.array(bits), -(-width // _BITS))[:width] * 200 + 20
  image = np.tile(columns[None, :, None], (height, 1, 3))
  image[height // 2 :] //= 2
  return image.astype(np.uint8)


def number_of(image: np.ndarray) -> int:
  """Reads the number back from a decoded picture."""
  upper = image[: image.shape[0] // 2].mean(axis=(0, 2))
  middles = (np.arange(_BITS) + 0.5) * image.shape[1] / _BITS
  return sum(1 << bit for bit, x in enumerate(middles) if upper[int(x)] > 120)


def read_frames(media, indices) -> np.ndarray:
  """Decodes frames of a file, opened for them alone."""
  with VideoReader(media) as reader:
    return np.stack(reader.read(indices))


def probe(media) -> tuple[int, float, int, int]:
  """Frames, frames per second, height and width of a video."""
  with VideoReader(media) as reader:
    return reader.num_frames, reader.fps, *reader.read([0])[0].shape[:2]


def write_video(
  path: pathlib.Path | io.BytesIO,
  count: int = 40,
  *,
  codec: str = "libx264",
  pix_fmt: str = "yuv420p",
  size: tuple[int, int] = (48, 96),
  pts: list[int] | None = None,
  ticks: int = 25,
  b_frames: int = 2,
  gop: int = 10,
  aspect: int | None = None,
  rotation: int = 0,
  matrix: tuple[int, ...] | None = None,
  file_format: str | None = None,
  options: dict | None = None,
  encoder: dict | None = None,
  metadata: dict | None = None,
  draw: Callable[[int], np.ndarray] | None = None,
) -> None:
  """Writes pictures 0 .. count - 1 at the times `pts / ticks` seconds.

  `options` are the file format's, `encoder` the codec's; `draw` replaces `picture`.
  """
  with av.open(path, "w", format=file_format, options=options or {}) as container:
    container.metadata.update(metadata or {})
    stream = container.add_stream(codec, rate=ticks, options=encoder or {})
    stream.height, stream.width = size
    stream.pix_fmt = pix_fmt
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    if codec in ("libx264", "mpeg1video", "mpeg2video", "mpeg4"):
      stream.codec_context.max_b_frames = b_frames
    if codec != "libx265":
      stream.codec_context.gop_size = gop
    if aspect:
      stream.codec_context.sample_aspect_ratio = aspect
    if rotation:
      stream.set_display_rotation(rotation)
    if matrix:
      stream.set_display_matrix(matrix)
    for number in range(count):
      image = draw(number) if draw else picture(number, *size)
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      frame.pts = pts[number] if pts else number
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def video_bytes(count: int = 40, *, file_format: str = "mp4", **options) -> bytes:
  """Returns such a video as the bytes of a file."""
  buffer = io.BytesIO()
  write_video(buffer, count, file_format=file_format, **options)
  return buffer.getvalue()


def cut_at_second_key(source: bytes, path: pathlib.Path) -> None:
  """Copies a video's packets from its second key frame on, as editors cut files."""
  with av.open(io.BytesIO(source)) as old, av.open(path, "w") as new:
    stream = new.add_stream_from_template(old.streams.video[0])
    keys = 0
    for packet in old.demux(video=0):
      keys += packet.is_keyframe
      if keys > 1 and packet.size:
        packet.stream = stream
        new.mux(packet)
