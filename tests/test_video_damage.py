"""Video files with random damage: errors of one kind, whatever the libraries do."""

import dataclasses
import types

import media_files
import numpy as np
import pytest

from motion_jax.data import decoder, media, pixels, video
from motion_jax.data.builders import encoding, plan
from motion_jax.data.sources import DecodeError, Record


def _damaged_copies(data, count):
  """Yields copies with random bytes in random places, some of them cut off."""
  rng = np.random.default_rng(4)
  for number in range(count):
    copy = np.frombuffer(data, np.uint8).copy()
    size = len(copy)
    low, high = [(0, size), (0, min(size, 1200)), (max(0, size - 1200), size)][
      number % 3
    ]
    places = rng.integers(low, high, (1, 3, 20, 100)[number % 4])
    copy[places] = rng.integers(0, 256, len(places))
    yield copy[: size if number % 5 else int(rng.integers(size))].tobytes()


@pytest.mark.parametrize(
  ("name", "codec"), [("a.mp4", "libx264"), ("b.avi", "mpeg4"), ("c.ts", "libx264")]
)
def test_damage_anywhere_is_nothing_but_a_video_error(tmp_path, name, codec):
  path = tmp_path / name
  media_files.write_video(path, 12, codec=codec, gop=4)
  whole = path.read_bytes()
  outcomes = set()
  for number, data in enumerate(_damaged_copies(whole, 120)):
    try:
      with video.VideoReader(data) as reader:
        last = reader.num_frames - 1
        reader.read([0, last // 2, last])
        assert len(list(reader.frames())) == reader.num_frames
      outcomes.add("good")
    except DecodeError:
      outcomes.add("bad")
    try:
      record = Record("x", "video", data)
      media.read_record(record, lambda count, fps: [count - 1])
    except DecodeError:
      outcomes.add("bad record")
    path.write_bytes(data)
    item = plan.Item(f"{number}", str(path), 0, "train")
    layout = ("video", "frames")[number % 2]
    try:
      outcomes.add(bool(encoding.encode(item, layout, 32)[1]))
    except DecodeError:
      outcomes.add("lost")
  assert outcomes == {"good", "bad", "bad record", "lost", True, False}


class _Stream:
  """A stream whose codec a damaged header does not name."""

  codec_context, disposition = None, 0


def test_the_kinds_of_damage_that_once_stopped_a_run_are_named(monkeypatch):
  data = media_files.video_bytes()
  with video.VideoReader(data) as reader:
    reader._timeline = dataclasses.replace(
      reader._timeline, keys=np.array([], np.int64)
    )
    with pytest.raises(DecodeError, match="no key frames"):
      reader.read([0, 30])

  class Container:
    def __init__(self, streams):
      self.streams = types.SimpleNamespace(video=streams)
      self.closed = False

    def close(self):
      self.closed = True

  for streams, message in (([], "no video stream"), ([_Stream()], "codec of the vid")):
    container = Container(streams)
    monkeypatch.setattr(decoder.av, "open", lambda *_, c=container, **__: c)
    with pytest.raises(DecodeError, match=message):
      video.VideoReader(data)
    assert container.closed


def test_an_unforeseen_error_of_a_library_is_kept_as_the_cause(monkeypatch):
  data = media_files.video_bytes(4)
  with video.VideoReader(data) as reader:
    monkeypatch.setattr(pixels.Converter, "__call__", lambda *_: [].pop())
    with pytest.raises(DecodeError, match="pop from empty list") as caught:
      reader.read([1])
    assert isinstance(caught.value.__cause__, IndexError)
    with pytest.raises(DecodeError, match="pop from empty list"):
      next(reader.frames())
