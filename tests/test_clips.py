"""Samplers: sizes, windows, resizing and clip positions."""

import pathlib
import pickle
import zlib

import cv2
import media_files
import numpy as np
import pytest

from motion_jax.config import UserError
from motion_jax.data import clips, decoder, media
from motion_jax.data.sources import DecodeError, Record

_GOLDEN = pathlib.Path(__file__).parent / "golden" / "mosi.npz"
_EVALUATION = pathlib.Path(__file__).parent / "golden" / "evaluation.npz"


_SIZE = {"short_side": 48, "canvas": (48, 96)}


def _image_record(image):
  return Record("x", "image", cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def _noise(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
  ("height", "width", "short", "expected"),
  [
    (240, 426, 320, (320, 568)),
    (426, 240, 320, (568, 320)),
    (300, 300, 320, (320, 320)),
    (50, 75, 64, (64, 96)),
    (128, 170, 320, (320, 425)),
    (49, 98, 7, (7, int(7 / 49 * 98))),  # not what 7 * 98 // 49 gives for all sizes
    (1080, 1920, 112, (112, 199)),
  ],
)
def test_long_side_is_truncated(height, width, short, expected):
  assert media.resized_shape(height, width, short) == expected


@pytest.mark.parametrize(
  ("case", "shape"), [(0, (320, 320)), (1, (240, 426)), (2, (300, 300))]
)
def test_resizing_equals_the_golden_mosi_source(case, shape):
  golden = np.load(_GOLDEN)
  seed = [2101, zlib.crc32(f"source:{case}".encode())]
  source = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
  sample = clips.SourceFrame(320, (320, 600))(
    _image_record(source), np.random.default_rng(0)
  )
  image = sample["image"]
  label = len(golden[f"generator{case}/speeds"]) - 1  # the static one
  assert not golden[f"generator{case}/speeds"][label].any()
  top, left = golden[f"generator{case}/square_crop_top_left"][label] + 104
  crop = image[top : top + 112, left : left + 112]
  expected = golden[f"generator{case}/stride_sample"][label]  # [3, T, 13, 12]
  expected = np.round((expected * 0.225 + 0.45) * 255)
  got = crop[3::9, 5::9].transpose(2, 0, 1)[:, None]
  bits = golden[f"generator{case}/stride_sample_rounding_sensitive"]
  count = golden[f"generator{case}/stride_sample"].size
  fragile = np.unpackbits(bits)[:count].reshape(
    golden[f"generator{case}/stride_sample"].shape
  )[label]
  assert fragile.mean() < 0.1
  np.testing.assert_array_equal(
    np.where(fragile, expected, np.broadcast_to(got, expected.shape)), expected
  )


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (200, 300), (64, 64), (32, 900)])
def test_a_frame_fills_its_extent_and_nothing_else(shape):
  sampler = clips.SourceFrame(64, (64, 96))
  image = _noise(*shape).clip(1)
  sample = sampler(_image_record(image), np.random.default_rng(1))
  height, width = sample["extent"]
  full = media.resized_shape(*shape, 64)
  if shape[0] > shape[1]:  # lies turned
    height, width = width, height
  assert (height, width) == (64, min(max(full), 96))
  assert sample["image"].shape == (64, 96, 3) and sample["image"].dtype == np.uint8
  assert not sample["image"][height:].any() and not sample["image"][:, width:].any()
  assert sample["image"][:height, :width].all(axis=-1).mean() > 0.99
  assert {k: (v.shape, v.dtype) for k, v in sample.items()} == {
    k: (v.shape, v.dtype) for k, v in sampler.empty().items()
  }


def test_a_frame_beyond_the_canvas_is_cut_to_every_window():
  ramp = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (20, 1, 3))
  sampler = clips.SourceFrame(20, (20, 90))
  record = _image_record(ramp)
  lefts = [
    int(sampler(record, np.random.default_rng(i))["image"][0, 0, 0]) for i in range(200)
  ]
  assert set(lefts) == set(range(11))


def test_every_frame_of_a_video_is_drawn_alike():
  sampler = clips.SourceFrame(48, (48, 96))
  record = Record("v", "video", media_files.video_bytes(8))
  drawn = [
    media_files.number_of(sampler(record, np.random.default_rng(i))["image"])
    for i in range(200)
  ]
  counts = np.bincount(drawn, minlength=8)
  assert len(counts) == 8 and counts.min() >= 12  # 25 expected; P(fewer) < 0.005


def test_frames_of_a_folder_are_a_video():
  images = tuple(
    cv2.imencode(".png", media_files.picture(n))[1].tobytes() for n in range(6)
  )
  record = Record("f", "frames", images)
  sampler = clips.SourceFrame(48, (48, 96))
  drawn = {
    media_files.number_of(sampler(record, np.random.default_rng(i))["image"])
    for i in range(60)
  }
  assert drawn == set(range(6))


@pytest.mark.parametrize(
  "record",
  [
    Record("a", "image", b""),
    Record("b", "image", b"no image"),
    Record("c", "image", pathlib.Path("missing.jpg")),
    Record("d", "video", b"no video"),
    Record("e", "frames", ()),
    Record("f", "frames", (b"no image",)),
    _image_record(np.zeros((1, 60000, 3), np.uint8)),
  ],
)
def test_what_cannot_be_decoded_is_a_decode_error(record):
  with pytest.raises(DecodeError):
    clips.SourceFrame(320, (320, 428))(record, np.random.default_rng(0))


def test_clip_positions_equal_the_golden_ones():
  golden = np.load(_EVALUATION)
  for row, expected, fragile in zip(
    golden["clips/rows"],
    golden["clips/reference"],
    golden["clips/near_integer"].astype(bool),
    strict=True,
  ):
    length, fps, frames, interval, views, view = row
    frames = int(frames)
    start = clips.view_starts(int(views))[int(view)]
    sampler = clips.Views(int(views), frames, int(interval), **_SIZE)
    got = sampler._indices(int(length), fps, [start])
    keep = ~fragile[:frames]
    np.testing.assert_array_equal(got[keep], expected[:frames][keep])


@pytest.mark.parametrize(
  ("length", "fps", "start", "expected"),
  [
    (100, 30.0, 0.0, [0, 4, 9, 14, 19]),  # 5 frames over 20
    (100, 15.0, 0.0, [0, 2, 4, 6, 9]),  # half the rate: half the frames
    (100, 30.0, 0.5, [40, 44, 49, 54, 59]),
    (8, 30.0, 0.9, [0, 4, 7, 7, 7]),  # too short: the last frame stays
    (1, 30.0, 0.5, [0, 0, 0, 0, 0]),
  ],
)
def test_clips_keep_their_pace_in_seconds(length, fps, start, expected):
  got = clips.Clip(5, 4, **_SIZE)._indices(length, fps, [start])
  assert got.tolist() == expected


def test_a_clip_holds_consecutive_frames():
  record = Record("v", "video", media_files.video_bytes(40))
  clip = clips.Clip(4, 1, fps=25.0, **_SIZE)(record, np.random.default_rng(0))
  numbers = [media_files.number_of(frame) for frame in clip["video"]]
  assert numbers == list(range(numbers[0], numbers[0] + 4))


@pytest.mark.parametrize(
  ("views", "starts"), [(3, [0, 12, 25]), (1, [19]), (0, list(range(0, 37, 4)))]
)
def test_views_cover_the_video(views, starts):
  record = Record("v", "video", media_files.video_bytes(42))
  sampler = clips.Views(views, 4, 1, fps=0.0, **_SIZE)
  sample = sampler(record, np.random.default_rng(0))
  assert [media_files.number_of(view[0]) for view in sample["video"]] == starts
  assert sample["extent"].tolist() == [[48, 96]] * len(starts)


def test_a_video_shorter_than_a_clip_repeats_its_last_frame_and_is_told(caplog):
  record = Record("v", "video", media_files.video_bytes(3))
  clips._warned = False
  with caplog.at_level("WARNING", "motion_jax"):
    sample = clips.Views(0, 8, 1, fps=0.0, **_SIZE)(record, np.random.default_rng(0))
  assert [media_files.number_of(f) for f in sample["video"][0]] == [
    0,
    1,
    2,
    2,
    2,
    2,
    2,
    2,
  ]
  assert "v has 3 frames, a clip spans 8" in caplog.text


def test_samplers_are_small_when_pickled():
  sampler = pickle.loads(pickle.dumps(clips.SourceFrame(64, (64, 96))))
  assert sampler.empty()["image"].shape == (64, 96, 3)
  assert len(pickle.dumps(sampler)) < 1000


def test_senseless_sizes_are_refused():
  with pytest.raises(UserError, match="0 frames"):
    clips.Clip(0, 1, short_side=8, canvas=(8, 8))


def test_all_clips_of_a_long_video_take_no_more_memory_than_some(monkeypatch):
  sampler = clips.Views(0, 4, 1, fps=0.0, overlap=0.25, **_SIZE)
  record = Record("v", "video", media_files.video_bytes(60))
  whole = sampler(record, np.random.default_rng(0))
  monkeypatch.setattr(clips, "_PART", 5 * 4 * 48 * 96 * 3)
  parts = list(sampler.parts(record))
  assert [len(part["video"]) for part in parts] == [5, 5, 5, 4]
  for name, array in whole.items():
    np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), array)


def test_the_parts_of_a_video_without_time_stamps_are_decoded_in_one_go(monkeypatch):
  media = media_files.video_bytes(60, file_format="h264")
  monkeypatch.setattr(clips, "_PART", 1)
  decode, decoded = decoder.Decoder.pictures, []

  def count(*arguments, **options):
    for picture in decode(*arguments, **options):
      decoded.append(1)
      yield picture

  monkeypatch.setattr(decoder.Decoder, "pictures", count)
  parts = clips.Views(0, 4, 1, fps=0.0, **_SIZE).parts(Record("v", "video", media))
  numbers = [media_files.number_of(part["video"][0, 0]) for part in parts]
  assert numbers == [*range(0, 60, 4)]
  assert len(decoded) <= 60 + 10  # and once the beginning, to see whether all is there
