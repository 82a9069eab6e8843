"""How prepared motion is stored: 8-bit frames of videos in ArrayRecord files.

A video is a head (its size and the edge strength of every frame), then its frames as
gray JPEG images, `CHUNK` to a record, so that a clip is read without the rest of a long
video. What their numbers mean is in `motion_codec`; the components of flow are one
above the other.

JPEG at quality 95, measured on 72 frames of real actions at 128x170 (raw: 21.8 kB for
edges, 43.5 kB for flow):

            kB    decoding   mean error    99 % of the pixels   largest
  edges     5.9   0.12 ms    0.021         0.12                 0.35 of 10
  flow      3.2   0.08 ms    0.017 px      0.16 px              1.3 px

PNG, without an error, takes 9.1 kB and 6.1 kB and two to three times as long to decode;
zlib, as long as JPEG, 9.7 kB and 5.3 kB. 0.07 % of the flow was cut off at 20 pixels.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from motion_jax.data import disk
from motion_jax.data.sources import DecodeError

VERSION = 1
CHUNK = 32  # frames per record
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]
_LENGTH = np.dtype("<u4")


@dataclasses.dataclass(frozen=True)
class Head:
  """What is stored about a video beside its frames.

  Attributes:
    id: of the record.
    height, width: of the motion frames.
    strengths: [num_frames] float32, mean edge of every frame, on the scale [0, 1].
    damage: why there are fewer frames than the video promises; '' if there are not.
  """

  id: str
  height: int
  width: int
  strengths: np.ndarray
  damage: str = ""

  @property
  def num_frames(self) -> int:
    return len(self.strengths)

  def check(self, count: int) -> None:
    """Raises DecodeError unless this is the motion of a video of `count` frames."""
    if not self.num_frames:
      raise DecodeError(self.damage)
    if self.num_frames > count or (self.num_frames < count and not self.damage):
      raise DecodeError(
        f"its motion was prepared from {self.num_frames} frames, but it has {count}: "
        "prepare the motion again"
      )


def encode_frame(frame: np.ndarray) -> bytes:
  """Compresses a [H, W, C] uint8 frame; C is 1 or 2."""
  stacked = np.concatenate([*np.moveaxis(frame, 2, 0)])
  return cv2.imencode(".jpg", stacked, _JPEG)[1].tobytes()


def decode_frame(data: bytes, channels: int) -> np.ndarray:
  """Undoes `encode_frame`."""
  stacked = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
  parts = stacked.reshape(channels, -1, stacked.shape[1])
  return np.moveaxis(parts, 0, 2)


def pack(head: Head, frames: list[bytes]) -> Iterator[bytes]:
  """The records of a video, from its encoded frames."""
  about = dataclasses.asdict(head)
  strengths = about.pop("strengths").astype("<f4").tobytes()
  yield json.dumps(about).encode() + b"\n" + strengths
  for start in range(0, len(frames), CHUNK):
    part = frames[start : start + CHUNK]
    yield np.array([*map(len, part)], _LENGTH).tobytes() + b"".join(part)


def unpack_head(record: bytes) -> Head:
  """Reads the first record of a video."""
  about, _, strengths = record.partition(b"\n")
  return Head(strengths=np.frombuffer(strengths, "<f4"), **json.loads(about))


def unpack_frames(record: bytes, count: int, wanted: Iterable[int]) -> list[bytes]:
  """Takes encoded frames out of a record.

  Args:
    record: any but the first of a video.
    count: frames in it.
    wanted: their numbers in it.
  """
  sizes = np.frombuffer(record, _LENGTH, count).astype(np.int64)
  ends = count * _LENGTH.itemsize + np.cumsum(sizes)
  starts = ends - sizes
  return [record[starts[i] : ends[i]] for i in wanted]


def write_shard(path: pathlib.Path, videos: Iterable[tuple[Head, list[bytes]]]) -> None:
  """Writes `<path>.array_record`, then its table of contents `<path>.json`.

  Each appears when it is complete; a shard with a table of contents is finished.
  """
  contents = {"ids": [], "firsts": [], "damaged": {}, "records": 0}
  target = path.with_suffix(".array_record")
  with disk.new_records(target, "group_size:1,uncompressed") as store:
    for head, frames in videos:
      contents["ids"].append(head.id)
      contents["firsts"].append(contents["records"])
      if head.damage:
        contents["damaged"][head.id] = head.damage
      for record in pack(head, frames):
        store(record)
        contents["records"] += 1
  disk.write_json(path.with_suffix(".json"), contents)
