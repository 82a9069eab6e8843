"""Frames found by seeking are those of decoding in order, whatever codec and file."""

import itertools

import av
import media_files
import numpy as np
import pytest

from motion_jax.data import decoder, video

_COUNT = 50
_OPEN_GOP = "keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0:open-gop=1"
_X265 = "log-level=none:pools=none:frame-threads=1:keyint=10:min-keyint=10"
# Codec, pixel format, size, options.
_CODECS = {
  "h264": ("libx264", "yuv420p", {}),
  "h264 open": ("libx264", "yuv420p", {"x264-params": _OPEN_GOP}),
  "h264 10 bit": ("libx264", "yuv420p10le", {}),
  "hevc": ("libx265", "yuv420p", {"x265-params": f"{_X265}:open-gop=0"}),
  "hevc open": ("libx265", "yuv420p", {"x265-params": f"{_X265}:{_OPEN_GOP}"}),
  "hevc 10 bit": ("libx265", "yuv420p10le", {"x265-params": _X265}),
  "vp8": ("libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
  "vp9": ("libvpx-vp9", "yuv420p", {"cpu-used": "8", "lag-in-frames": "10"}),
  "vp9 alpha": ("libvpx-vp9", "yuva420p", {"cpu-used": "8"}),
  "av1": ("libsvtav1", "yuv420p", {"preset": "12"}),
  "mpeg1": ("mpeg1video", "yuv420p", {}),
  "mpeg2": ("mpeg2video", "yuv420p", {}),
  "mpeg4": ("mpeg4", "yuv420p", {}),
  "msmpeg4v2": ("msmpeg4v2", "yuv420p", {}),
  "msmpeg4v3": ("msmpeg4", "yuv420p", {}),
  "wmv1": ("wmv1", "yuv420p", {}),
  "wmv2": ("wmv2", "yuv420p", {}),
  "mjpeg": ("mjpeg", "yuvj420p", {}),
  "prores": ("prores_ks", "yuv422p10le", {}),
  "ffv1": ("ffv1", "yuv420p", {}),
  "huffyuv": ("huffyuv", "yuv422p", {}),
}
_SUFFIXES = (
  *("mp4", "mkv", "mov", "avi", "ts", "mpg", "vob", "flv", "webm", "asf", "3gp"),
  *("h264", "hevc", "m1v", "m2v", "m4v", "obu", "ivf", "mjpeg"),
)
# Each has a way of its own to tell, or to hide, when pictures are shown.
_QUICK = [
  *(("h264", suffix) for suffix in ("mp4", "mkv", "avi", "ts", "mpg", "asf", "h264")),
  *(("h264 open", suffix) for suffix in ("mov", "ts")),
  *(("hevc open", suffix) for suffix in ("mp4", "hevc")),
  *(("av1", suffix) for suffix in ("mp4", "webm", "obu")),
  *(("mpeg1", suffix) for suffix in ("mpg", "m1v")),
  *(("mpeg2", suffix) for suffix in ("vob", "asf", "m2v")),
  *(("mpeg4", suffix) for suffix in ("ts", "avi", "3gp")),
  ("hevc 10 bit", "mkv"),
  ("vp8", "webm"),
  ("vp9 alpha", "webm"),
  ("wmv2", "asf"),
]


def _write(path, codec):
  name, pix_fmt, encoder = _CODECS[codec]
  media_files.write_video(path, _COUNT, codec=name, pix_fmt=pix_fmt, encoder=encoder)


def _in_order(path):
  """Decodes all frames, without the module under test."""
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    return [f.to_ndarray(format="rgb24") for f in container.decode(stream)]


def _check(path):
  expected = _in_order(path)
  assert [media_files.number_of(frame) for frame in expected] == [*range(_COUNT)]

  def same(frames, indices):
    for frame, index in zip(frames, indices, strict=True):
      assert media_files.number_of(frame) == index
      np.testing.assert_array_equal(frame, expected[index])

  for index in (0, 1, 9, 11, 18, 27, _COUNT - 2, _COUNT - 1):
    same(media_files.read_frames(path, [index]), [index])
  with video.VideoReader(path) as reader:
    assert reader.num_frames == _COUNT
    ways = [3, 41, 22, 22], range(12, 28), [_COUNT - 1], [0, 49], [7]
    for indices in (*ways, range(1, _COUNT, 8), range(9, _COUNT, 10), [2, 13, 14, 31]):
      same(reader.read(indices), indices)
    same(reader.frames(), range(_COUNT))
    same(reader.read([4, 30]), [4, 30])
    same(reader.frames(), range(_COUNT))


@pytest.mark.parametrize(("codec", "suffix"), _QUICK)
def test_frames_found_by_seeking_are_those_in_order(tmp_path, codec, suffix):
  path = tmp_path / f"video.{suffix}"
  _write(path, codec)
  _check(path)


@pytest.mark.parametrize("codec", ["h264 open", "hevc open", "mpeg2", "mpeg4"])
def test_nothing_is_skipped_that_pictures_before_a_key_frame_need(tmp_path, codec):
  path = tmp_path / "video.mp4"
  _write(path, codec)
  with av.open(str(path)) as container:
    times = [frame.pts for frame in container.decode(video=0)]
  fewer = 0
  for first in range(10):
    wanted = {*times[first::10]}
    reader = decoder.Decoder(path)
    shown = [frame.pts for frame in reader.pictures(wanted=wanted, skips=True)]
    reader.close()
    assert wanted <= {*shown} and shown == sorted({*shown})
    fewer += len(shown) < _COUNT // 2
  assert fewer


@pytest.mark.long
@pytest.mark.parametrize("codec", _CODECS)
def test_every_codec_in_every_file_that_takes_it(tmp_path, codec):
  checked = 0
  for suffix in _SUFFIXES:
    path = tmp_path / f"video.{suffix}"
    try:
      _write(path, codec)
      assert len(_in_order(path)) == _COUNT
    except (av.FFmpegError, ValueError, IndexError, AttributeError, AssertionError):
      continue  # not a pair that FFmpeg can write and read
    _check(path)
    checked += 1
  assert checked


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 20])
def test_a_reader_can_be_used_again_after_its_last_frame(tmp_path, count):
  for suffix, indices in itertools.product(
    ("mp4", "mkv"), ([0, count - 1], [count - 1])
  ):
    path = tmp_path / f"{count}.{suffix}"
    media_files.write_video(path, count)
    with video.VideoReader(path) as reader:
      for _ in range(3):
        got = [media_files.number_of(frame) for frame in reader.read(indices)]
        assert got == indices
      assert len(list(reader.frames())) == count
      got = [media_files.number_of(frame) for frame in reader.read(indices)]
      assert got == indices


def test_an_interrupted_pass_does_no_harm(tmp_path):
  path = tmp_path / "video.mp4"
  media_files.write_video(path)
  with video.VideoReader(path) as reader:
    reader.read([20])
    frames = reader.frames()
    assert [media_files.number_of(next(frames)) for _ in range(3)] == [0, 1, 2]
    assert media_files.number_of(reader.read([30])[0]) == 30
    assert [media_files.number_of(f) for f in reader.frames()] == [*range(40)]
