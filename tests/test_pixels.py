"""Frames as they are meant to be seen: upright, progressive, of known brightness."""

import io

import av
import cv2
import media_files
import numpy as np
import pytest

from motion_jax.data import pixels, video


@pytest.mark.parametrize(
  ("matrix", "expected"),
  [
    ((1, 0, 0, 1), lambda image: image),
    ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    ((1, 0, 0, -1), lambda image: image[::-1]),
    ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    ((0, -1, 1, 0), lambda image: np.rot90(image)),
    ((0, -1, -1, 0), lambda image: image.transpose(1, 0, 2)[::-1, ::-1]),
  ],
)
def test_frames_are_turned_and_mirrored_as_the_file_says(matrix, expected):
  a, b, c, d = (value << 16 for value in matrix)
  stored = media_files.video_bytes(3)
  media = media_files.video_bytes(3, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
  with video.VideoReader(stored) as plain, video.VideoReader(media) as reader:
    frames = plain.read([2])
    np.testing.assert_array_equal(reader.read([2])[0], expected(frames[0]))
    assert np.stack(list(reader.frames())).shape[1:] == reader.read([0])[0].shape


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_told_once(
  tmp_path, caplog, monkeypatch, curve, name, in_file
):
  path = tmp_path / "sunset.mp4"
  media_files.write_video(
    path,
    3,
    b_frames=0,  # such files are not probed
    pix_fmt="yuv420p10le",
    encoder={"color_trc": str(curve), "color_primaries": "9", "colorspace": "9"},
  )
  if not in_file:
    path.write_bytes(_without(path.read_bytes(), b"colr"))
  monkeypatch.setattr(pixels, "_told", False)
  with caplog.at_level("WARNING", "motion_jax"):
    for _ in range(2):
      media_files.read_frames(path, [0, 2])
  (line,) = caplog.messages
  assert f"{path} has a high dynamic range ({name})" in line


def _without(media, box):
  assert media.count(box) == 1
  return media.replace(box, b"free")


def test_the_shape_of_pixels_may_stand_in_the_pictures_alone():
  told = media_files.video_bytes(20, b_frames=0, aspect=2)
  for media in (told, _without(told, b"pasp")):
    with video.VideoReader(media) as reader:
      frames = reader.read([3, 17])
      whole = list(reader.frames())
      assert {frame.shape for frame in (*frames, *whole)} == {(48, 192, 3)}
      np.testing.assert_array_equal(frames, [whole[3], whole[17]])
      assert next(reader.frames(short_side=24)).shape == (24, 96, 3)


def test_of_two_shapes_of_pixels_that_of_the_file_counts():
  media = media_files.video_bytes(3, b_frames=0, aspect=2)
  at = media.index(b"pasp") + 4
  media = media[:at] + (3).to_bytes(4, "big") + media[at + 4 :]
  with video.VideoReader(media) as reader:
    assert reader.read([1])[0].shape == next(reader.frames()).shape == (48, 288, 3)


def test_a_wrong_size_in_the_file_does_not_make_two_ways_of_reading_differ():
  media = media_files.video_bytes(20, b_frames=0)
  at = media.index(b"avc1", media.index(b"stsd")) + 28
  assert media[at : at + 2] == (96).to_bytes(2, "big")
  media = media[:at] + (160).to_bytes(2, "big") + media[at + 2 :]
  with video.VideoReader(media) as reader:
    frame = reader.read([3])[0]
    # Shown as wide as the file says: pixels are 96 / 160 as wide as high.
    assert frame.shape == (48, 58, 3)
    np.testing.assert_array_equal(frame, list(reader.frames())[3])


_TEXTURE = cv2.GaussianBlur(
  np.random.default_rng(0).integers(0, 256, (96, 400)).astype(np.float32), (0, 0), 3
)
_TEXTURE = ((_TEXTURE - _TEXTURE.min()) / np.ptp(_TEXTURE) * 255)[..., None].repeat(
  3, 2
)
_COLOURS = np.stack([_TEXTURE[..., 0], _TEXTURE[::-1, :, 0], _TEXTURE[:, ::-1, 0]], -1)


def _moment(time, texture=_TEXTURE):
  left = round(8 * time)
  return texture[:, left : left + 128]


def _interlaced(number):
  image = _moment(number).copy()
  image[1::2] = _moment(number + 0.5)[1::2]
  return image.astype(np.uint8)


def _mpeg2(draw, flags="+ildct+ilme"):
  buffer = io.BytesIO()
  media_files.write_video(
    buffer,
    12,
    codec="mpeg2video",
    size=(96, 128),
    file_format="mpegts",
    encoder={"flags": flags, "qmax": "2"},
    draw=draw,
  )
  return buffer.getvalue()


def _error(frames, texture=_TEXTURE):
  expected = np.stack([_moment(number, texture) for number in range(len(frames))])
  return np.abs(frames - expected)[:, 4:-4, 4:-4].mean()


def test_progressive_pictures_flagged_as_interlaced_are_converted_plainly():
  def draw(number):
    return _moment(number, _COLOURS).astype(np.uint8)

  media = _mpeg2(draw)
  with av.open(io.BytesIO(media)) as container:
    assert all(frame.interlaced_frame for frame in container.decode(video=0))
  flagged = _error(media_files.read_frames(media, range(12)), _COLOURS)
  plain = _error(media_files.read_frames(_mpeg2(draw, flags="0"), range(12)), _COLOURS)
  assert flagged < plain + 0.1


def test_interlaced_pictures_become_those_of_one_moment():
  media = _mpeg2(_interlaced)
  frames = media_files.read_frames(media, range(12))
  with av.open(io.BytesIO(media)) as container:
    combed = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
  assert frames.shape == (12, 96, 128, 3)
  assert _error(frames) < 0.6 * _error(np.stack(combed))
  with video.VideoReader(media) as reader:
    np.testing.assert_array_equal(np.stack(list(reader.frames())), frames)
    np.testing.assert_array_equal(reader.read([7])[0], frames[7])
    assert next(reader.frames(short_side=48)).shape == (48, 64, 3)
