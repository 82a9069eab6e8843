"""Files that were cut, joined or that hold more than one stream of pictures."""

import itertools

import av
import media_files
import numpy as np
import pytest

from motion_jax.data import media, video
from motion_jax.data.builders import encoding
from motion_jax.data.sources import DecodeError, Record

_OPEN_GOP = {
  "libx264": {
    "x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0"
    ":repeat-headers=1"
  },
  "mpeg2video": {},
}


def _numbers(frames):
  return [media_files.number_of(frame) for frame in frames]


@pytest.mark.parametrize(
  ("codec", "suffix", "first"),
  [
    *(("libx264", suffix, 10) for suffix in ("mp4", "mov", "mkv", "ts", "flv", "avi")),
    *(("mpeg2video", suffix, 12) for suffix in ("mp4", "mkv", "ts", "mpg", "vob")),
  ],
)
def test_pictures_that_refer_to_what_was_cut_off_are_not_counted(
  tmp_path, codec, suffix, first
):
  whole = media_files.video_bytes(
    50,
    file_format="nut",
    codec=codec,
    encoder=_OPEN_GOP[codec],
    b_frames=3 if codec == "libx264" else 2,
  )
  path = tmp_path / f"cut.{suffix}"
  media_files.cut_at_second_key(whole, path)
  expected = [*range(first, 50)]
  with video.VideoReader(path) as reader:
    assert reader.num_frames == len(expected)
    assert _numbers(reader.read(range(len(expected)))) == expected
    assert _numbers(reader.read([len(expected) - 1])) == [49]
    assert _numbers(reader.frames()) == expected
  for index in (0, 1, 9, 10, len(expected) - 3, len(expected) - 1):
    assert _numbers(media_files.read_frames(path, [index])) == [expected[index]]
  # What prepares motion counts alike.
  assert _numbers(media.whole_video(Record("x", "video", path), 48)) == expected


def _add(container, codec, size, *, pix_fmt="yuv420p", disposition=0):
  stream = container.add_stream(codec, rate=25)
  stream.height, stream.width = size
  stream.pix_fmt = pix_fmt
  stream.thread_type = "NONE"
  stream.disposition = disposition
  return stream


def _encode(container, stream, image, pts):
  frame = av.VideoFrame.from_ndarray(image, format="rgb24")
  frame.pts = pts
  container.mux(stream.encode(frame))


def _boxes(data):
  while data:
    size = int.from_bytes(data[:4], "big")
    yield data[4:8], data[:size]
    data = data[size:]


def _with_cover_first(data):
  """Moves `udta`, which has the cover, before the tracks, as some writers put it."""
  (moov,) = (box for name, box in _boxes(data) if name == b"moov")
  boxes = sorted(_boxes(moov[8:]), key=lambda box: box[0] == b"trak")
  return data.replace(moov, moov[:8] + b"".join(box for _, box in boxes))


@pytest.mark.parametrize(
  ("suffix", "kind"),
  [
    *itertools.product(("mp4", "mov", "mkv"), ("thumbnails", "poster")),
    ("mp4", "cover"),
  ],
)
def test_covers_and_thumbnails_before_the_video_are_not_the_video(
  tmp_path, suffix, kind
):
  path = tmp_path / f"video.{suffix}"
  codec, pix_fmt, size, disposition = {
    "cover": ("mjpeg", "yuvj420p", (480, 640), av.stream.Disposition.attached_pic),
    "poster": ("mjpeg", "yuvj420p", (48, 64), 0),
    "thumbnails": ("libx264", "yuv420p", (48, 64), 0),
  }[kind]
  with av.open(path, "w") as container:
    still = _add(container, codec, size, pix_fmt=pix_fmt, disposition=disposition)
    stream = _add(container, "libx264", (96, 192))
    for number in range(4 if kind == "thumbnails" else 1):
      _encode(container, still, media_files.picture(63, *size), number)
    container.mux(still.encode(None))
    for number in range(30):
      _encode(container, stream, media_files.picture(number, 96, 192), number)
    container.mux(stream.encode(None))
  if kind == "cover":
    path.write_bytes(_with_cover_first(path.read_bytes()))
    with av.open(path) as container:
      assert container.streams.video[0].codec_context.name == "mjpeg"
  assert media_files.probe(path) == (30, 25.0, 96, 192)
  assert _numbers(media_files.read_frames(path, [0, 17, 29])) == [0, 17, 29]
  with video.VideoReader(path) as reader:
    assert _numbers(reader.frames()) == [*range(30)]


def test_a_cover_attached_to_a_matroska_file_is_not_the_video(tmp_path):
  path = tmp_path / "video.mkv"
  cover = encoding.encode_jpeg(media_files.picture(63, 480, 640))
  with av.open(path, "w") as container:
    container.add_attachment("cover.jpg", "image/jpeg", cover)
    stream = _add(container, "libx264", (96, 192))
    for number in range(30):
      _encode(container, stream, media_files.picture(number, 96, 192), number)
    container.mux(stream.encode(None))
  assert media_files.probe(path) == (30, 25.0, 96, 192)


def test_a_cover_alone_is_no_video(tmp_path):
  path = tmp_path / "song.mp4"
  with av.open(path, "w") as container:
    cover = av.stream.Disposition.attached_pic
    sound = container.add_stream("aac", rate=16000)
    still = _add(container, "mjpeg", (48, 64), pix_fmt="yuvj420p", disposition=cover)
    _encode(container, still, media_files.picture(5, 48, 64), 0)
    container.mux(still.encode(None))
    samples = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), "fltp", "mono"
    )
    samples.sample_rate = 16000
    container.mux(sound.encode(samples))
    container.mux(sound.encode(None))
  with pytest.raises(DecodeError, match="no video stream"):
    media_files.probe(path)


def _joined(file_format, *sizes):
  joined = b""
  for part, size in enumerate(sizes):
    joined += media_files.video_bytes(
      20,
      size=size,
      file_format=file_format,
      draw=lambda n, part=part, size=size: media_files.picture(20 * part + n, *size),
    )
  return joined


@pytest.mark.parametrize("file_format", ["mpegts", "h264"])
@pytest.mark.parametrize("sizes", [((48, 96), (64, 96)), ((64, 128), (48, 96))])
def test_frames_after_a_change_of_size_get_the_size_of_the_first(file_format, sizes):
  media = _joined(file_format, *sizes)
  frames = media_files.read_frames(media, range(15, 30))
  assert frames.shape[1:3] == sizes[0]
  assert _numbers(frames) == [*range(15, 30)]
  assert media_files.read_frames(media, [35]).shape[1:3] == sizes[0]
  with video.VideoReader(media) as reader:
    assert reader.num_frames == 40
    whole = list(reader.frames())
    assert _numbers(whole) == [*range(40)]
    assert {frame.shape[:2] for frame in whole} == {sizes[0]}
    assert {frame.shape[:2] for frame in reader.frames(short_side=32)} == {
      (32, 32 * sizes[0][1] // sizes[0][0])
    }


@pytest.mark.parametrize(
  ("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg4"), ("mpg", "mpeg2video")]
)
def test_a_late_picture_is_not_reached_by_decoding_from_the_start(
  tmp_path, monkeypatch, suffix, codec
):
  path = tmp_path / f"long.{suffix}"
  rng = np.random.default_rng(0)

  def draw(number):
    image = media_files.picture(number % 64)
    image[24:] = rng.integers(0, 256, image[24:].shape)  # some kilobytes, as of films
    return image

  media_files.write_video(path, 400, codec=codec, encoder={"qmax": "4"}, draw=draw)
  with video.VideoReader(path) as reader:
    opened = []
    monkeypatch.setattr(av, "open", lambda *_, **__: opened.append(1))
    for index in (395, 17, 201):
      assert _numbers(reader.read([index, index + 3])) == [index % 64, (index + 3) % 64]
    assert not opened  # a seek that misses is mended by opening the file anew
