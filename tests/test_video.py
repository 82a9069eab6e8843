"""Frames of awkward video files."""

import pathlib

import media_files
import numpy as np
import pytest

from motion_jax.data import video
from motion_jax.data.builders import encoding
from motion_jax.data.decoder import Decoder
from motion_jax.data.sources import DecodeError

_MISC = pathlib.Path(__file__).parents[2] / "shared" / "data" / "clips_misc"

# Files that hold nothing that can be decoded.
_HOPELESS = {
  "audio_only.mp4": "no video stream",
  "empty.mp4": "Invalid data",
  "no_frames.avi": "no video frames",
  "no_frames.mkv": "End of file",
  "text_named.mp4": "Invalid data",
  "truncated_60pct_moov_at_end.mp4": "Invalid data",
  "truncated_header_200B.mp4": "Invalid data",
}
# Files that promise more than they hold: (frames promised, frames surely intact).
_DAMAGED = {
  "decord_corrupted.mp4": (50, 28),
  "truncated_60pct_moov_at_start.mp4": (280, 165),
  "zeroed_middle.mp4": (90, 25),
}
# Frames, frames per second, height, width.
_GOOD = {
  "all_intra.mp4": (60, 25, 240, 320),
  "anim.gif": (20, 10, 120, 160),
  "annexb_raw.h264": (60, 25, 240, 320),
  "bitflips_400.avi": (190, 29.97, 240, 320),
  "corrupt_header.avi": (192, 29.97, 240, 320),
  "decord_unordered.mov": (4, 32, 50, 50),
  "flipping_a_pancake.mkv": (310, 30, 240, 426),
  "fps_1.mp4": (12, 1, 240, 320),
  "fps_240.mp4": (90, 240, 240, 320),
  "fragmented.mp4": (60, 25, 240, 320),
  "gray_ffv1.mkv": (20, 25, 96, 128),
  "jpeg_named.mp4": (1, 25, 240, 320),
  "long_gop_bframes.mp4": (90, 25, 240, 320),
  "mpeg_ts.ts": (60, 25, 240, 320),
  "negative_gap_start_late.mp4": (40, 25, 240, 320),
  "odd_size_129x97_yuv444.mp4": (40, 25, 97, 129),
  "odd_size_131x99_mjpeg.avi": (40, 25, 99, 131),
  "ok_mmaction_demo.mp4": (280, 28, 256, 427),
  "ok_ucf101_xvid.avi": (254, 25, 240, 320),
  "one_frame.mp4": (1, 25, 240, 320),
  "rotated_0.mov": (3, 30, 320, 568),
  "rotated_90.mov": (3, 30, 568, 320),
  "rotated_180.mov": (3, 30, 320, 568),
  "rotated_270.mov": (3, 30, 568, 320),
  "sar_2_1.mp4": (30, 25, 240, 320),
  "tall_64x512.mp4": (30, 25, 512, 64),
  "ten_bit.mp4": (40, 25, 240, 320),
  "tiny_16x16.mp4": (30, 25, 16, 16),
  "truncated_50pct.avi": (132, 25, 240, 320),
  "two_frames.mp4": (2, 25, 240, 320),
  "vfr.mp4": (90, 10, 240, 320),
  "vp9.webm": (40, 25, 240, 320),
  "wide_640x48.mp4": (30, 25, 48, 640),
}
# Decoding after a seek into damaged data gives other pixels than decoding it all; the
# time line of a variable rate is not that of the file's frames.
_NOT_AS_DECODED_IN_ORDER = {"bitflips_400.avi", "vfr.mp4"}


def _misc(name):
  path = _MISC / name
  if not path.exists():
    pytest.skip("needs shared/data/clips_misc")
  return path


def _in_order(path):
  """Decodes all frames from the start, without the module under test."""
  import av

  frames = []
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    aspect = stream.sample_aspect_ratio or 1
    for frame in container.decode(stream):
      rgb = frame.reformat(width=round(frame.width * aspect), format="rgb24")
      frames.append(np.rot90(rgb.to_ndarray(), frame.rotation // 90))
  return frames


@pytest.mark.parametrize("name", _GOOD)
def test_a_good_file_gives_its_frames_in_any_order(name):
  path = _misc(name)
  count, fps, height, width = _GOOD[name]
  found = media_files.probe(path)
  assert found == (count, pytest.approx(fps, rel=1e-3), height, width)
  chosen = sorted({0, count // 3, count // 2, max(0, count - 2), count - 1})[::-1]
  frames = media_files.read_frames(path, chosen)
  assert frames.shape == (len(chosen), height, width, 3)
  if name in _NOT_AS_DECODED_IN_ORDER:
    return
  expected = _in_order(path)
  assert len(expected) == count
  for index, frame in zip(chosen, frames, strict=True):
    np.testing.assert_array_equal(frame, expected[index])
    np.testing.assert_array_equal(media_files.read_frames(path, [index])[0], frame)


@pytest.mark.parametrize("name", _HOPELESS)
def test_a_hopeless_file_is_one_clear_error(name):
  with pytest.raises(DecodeError, match=_HOPELESS[name]):
    media_files.probe(_misc(name))


@pytest.mark.parametrize("name", _DAMAGED)
def test_frames_before_the_damage_are_usable_and_those_behind_are_errors(name):
  path = _misc(name)
  count, intact = _DAMAGED[name]
  with video.VideoReader(path) as reader:
    assert reader.num_frames == count
    assert len(reader.read([0, intact // 2, intact - 1])) == 3
  with pytest.raises(DecodeError):
    media_files.read_frames(path, [0, count - 1])


def test_rotated_files_are_upright():
  # All show a keyboard, seen from where one types. What tells up from down, found by
  # looking at them: the hinge's red is at the top right, the palm rest is smooth.
  def first(name):
    return media_files.read_frames(_misc(name), [0])[0].astype(float)

  half_turn = first("rotated_180.mov")
  redness = half_turn[..., 0] - half_turn[..., 1:].mean(axis=-1)
  assert redness[:100, -100:].mean() > redness[-100:, :100].mean() + 10
  quarter_turn = first("rotated_270.mov")
  assert quarter_turn.shape == (568, 320, 3)
  detail = np.abs(np.diff(quarter_turn.mean(axis=-1), axis=1)).mean(axis=1)
  assert detail[:200].mean() > 2 * detail[300:].mean()


def test_variable_rate_is_sampled_evenly_in_time():
  path = _misc("vfr.mp4")
  import av

  with av.open(str(path)) as container:
    shown = [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
  first, last = shown[0][0], shown[-1][0]
  for index in (0, 11, 44, 71, 89):
    time = first + index * (last - first) / 89
    expected = [image for pts, image in shown if pts <= time + 0.5][-1]
    np.testing.assert_array_equal(media_files.read_frames(path, [index])[0], expected)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("plain.mp4", {}),
    ("plain.mkv", {}),
    ("plain.mov", {"gop": 40}),
    ("plain.ts", {}),
    ("fragmented.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    ("raw.h264", {}),
    ("h264_in.avi", {}),
    ("mpeg4_in.avi", {"codec": "mpeg4"}),
    ("late.mp4", {"pts": list(range(500, 540))}),
    ("coarse_ticks.mkv", {"ticks": 30}),
    ("intra.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "size": (49, 99)}),
    ("gray.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
    ("animation.gif", {"codec": "gif", "pix_fmt": "rgb8", "ticks": 10}),
  ],
)
def test_every_container_gives_the_frame_asked_for(tmp_path, name, options):
  path = tmp_path / name
  media_files.write_video(path, **options)
  with video.VideoReader(path) as reader:
    assert reader.num_frames == 40
    assert reader.fps == pytest.approx(options.get("ticks", 25), rel=1e-3)
    for indices in ([0], [39], [17], [38, 2, 2, 21], list(range(40))):
      got = [media_files.number_of(frame) for frame in reader.read(indices)]
      assert got == indices
  media = path.read_bytes()
  assert [
    media_files.number_of(f) for f in media_files.read_frames(media, [31, 5])
  ] == [
    31,
    5,
  ]


def test_a_gap_in_time_repeats_the_frame_that_stays_on_screen(tmp_path):
  path = tmp_path / "gap.mp4"
  media_files.write_video(path, 10, pts=[0, 1, 2, 3, 4, 15, 16, 17, 18, 19], ticks=25)
  got = [media_files.number_of(f) for f in media_files.read_frames(path, range(10))]
  # Frame i is shown at i * 19 / 9 ticks: 0, 2.1, 4.2, 6.3, ... 12.7, 14.8, 16.9, 19.
  assert got == [0, 2, 4, 4, 4, 4, 4, 4, 6, 9]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_undone_and_size_is_that_on_screen(tmp_path, rotation):
  path = tmp_path / "phone.mp4"
  media_files.write_video(path, 3, rotation=rotation)
  stored = tmp_path / "stored.mp4"
  media_files.write_video(stored, 3)
  frame = media_files.read_frames(path, [2])[0]
  turned = np.rot90(media_files.read_frames(stored, [2])[0], rotation // 90)
  np.testing.assert_array_equal(frame, turned)
  assert media_files.probe(path)[2:] == ((96, 48) if rotation % 180 else (48, 96))


def test_pixels_become_square(tmp_path):
  path = tmp_path / "anamorphic.mp4"
  media_files.write_video(path, 3, aspect=2)
  assert media_files.read_frames(path, [1]).shape == (1, 48, 192, 3)


def test_a_cut_off_file_keeps_its_intact_frames(tmp_path):
  whole = tmp_path / "whole.mp4"
  media_files.write_video(whole, options={"movflags": "faststart"})
  data = whole.read_bytes()
  media = data[: int(len(data) * 0.7)]
  assert media_files.number_of(media_files.read_frames(media, [3])[0]) == 3
  with pytest.raises(DecodeError):
    media_files.read_frames(media, [39])


def test_a_title_that_is_not_utf8_does_no_harm():
  media = media_files.video_bytes(5, metadata={"title": "TITLE"})
  assert media.count(b"TITLE") == 1
  frames = media_files.read_frames(
    media.replace(b"TITLE", b"\xff\xfe\xe9\x80\xc1"), [4]
  )
  assert media_files.number_of(frames[0]) == 4


@pytest.mark.parametrize("media", [b"", b"not a video" * 90, "missing.mp4"])
def test_what_is_no_video_is_a_video_error(media):
  with pytest.raises(DecodeError):
    media_files.probe(media)


def test_nothing_is_decoded_between_a_wanted_picture_and_the_next_key_frame():
  media = media_files.video_bytes(50, gop=10, b_frames=0)
  times = [n * 512 for n in (1, 12, 13, 31)]
  shown = []
  for skips in (False, True):
    decoder = Decoder(media)
    frames = decoder.pictures(wanted={*times}, skips=skips)
    shown.append([frame.pts for frame in frames])
    decoder.close()
  assert shown[0] == [n * 512 for n in range(32)]
  assert shown[1] == [n * 512 for n in (0, 1, 10, 11, 12, 13, 30, 31)]


def test_prepared_videos_are_not_probed(tmp_path):
  frames = [media_files.picture(number, 48, 96) for number in range(40)]
  media = encoding.encode_mp4(frames, 25.0, cabac=False)
  path = tmp_path / "video.mp4"
  path.write_bytes(media)
  for one in (path, media):
    with video.VideoReader(one) as reader:
      assert not reader._decoder.probed and reader.num_frames == 40
      found = [media_files.number_of(frame) for frame in reader.read([3, 30])]
      assert found == [3, 30] and not reader._decoder.probed
