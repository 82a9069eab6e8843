"""Encodes what a data set record stores: short-GOP mp4 or a list of JPEG frames."""

from __future__ import annotations

import fractions
import io

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

KEY_EVERY = 12  # frames between key frames; bounds what a random access decodes


def encode_mp4(frames, fps: float, *, crf: int = 20, preset: str = "veryfast") -> bytes:
  """Encodes frames as H.264 in mp4, with a key frame at least every 12 frames.

  Args:
    frames: iterable of [H, W, 3] uint8 RGB, H and W even and all the same.
    fps: frames per second.
    crf: x264 quality, 0 (lossless) to 51.
    preset: x264 speed preset.

  Returns:
    The bytes of the mp4 file; the same for the same frames and library version.
  """
  buffer = io.BytesIO()
  rate = fractions.Fraction(fps).limit_denominator(1001)
  reformatter = VideoReformatter()
  with av.open(buffer, "w", format="mp4") as container:
    stream = None
    for image in frames:
      if stream is None:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_type = "NONE"
        stream.options = {
          "crf": str(crf),
          "preset": preset,
          "g": str(KEY_EVERY),
          "threads": "1",
        }
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      frame = reformatter.reformat(frame, format="yuv420p", threads=1)
      container.mux(stream.encode(frame))
    if stream is None:
      raise ValueError("no frames to encode")
    container.mux(stream.encode(None))
  return buffer.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
  """Encodes an [H, W, 3] uint8 RGB image as JPEG bytes."""
  flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
  return cv2.imencode(".jpg", image[..., ::-1], flags)[1].tobytes()


def reduced_size(height: int, width: int, short_side: int) -> tuple[int, int]:
  """Returns the even (height, width) whose shorter side is at most `short_side`."""
  scale = min(1.0, short_side / min(height, width))
  return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def reduce(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an [H, W, 3] uint8 image to (height, width) by averaging areas."""
  if image.shape[:2] == size:
    return image
  return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
