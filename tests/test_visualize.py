"""Pictures show the right frames, arrows and curves."""

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_config import load

from motion_jax.visualize import mosi
from motion_jax.visualize.clips import save_clip_grid, save_gif
from motion_jax.visualize.curves import save_curves
from motion_jax.visualize.style import BAD, GOOD

ACCENT = np.array([0xD1, 0x49, 0x5B])


def _clips(count=3, frames=7, size=56):
  shape = (count, frames, size, size, 3)
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _picture(path):
  return np.asarray(Image.open(path).convert("RGB")).astype(int)


def _accented(picture):
  return (abs(picture - ACCENT) < 12).all(-1)


def test_the_grid_shows_first_to_last_frame_of_every_clip_pixel_for_pixel(tmp_path):
  clips = _clips()
  save_clip_grid(tmp_path / "grid.png", clips, frames=4)
  picture = _picture(tmp_path / "grid.png")
  # 56 pixels are shown at twice their size, 6 apart, below a header of 22.
  assert picture.shape == (22 + 3 * 118, 6 + 4 * 118, 3)
  for row in range(3):
    for column, frame in enumerate((0, 2, 4, 6)):
      top, left = 22 + row * 118, 6 + column * 118
      cell = picture[top : top + 112, left : left + 112]
      expected = clips[row, frame].repeat(2, axis=0).repeat(2, axis=1)
      np.testing.assert_array_equal(cell, expected)


def test_any_file_name_may_be_a_title(tmp_path):
  titles = ["caf\udce9.mp4", "a$b_{$.mp4", "two\nlines"]
  save_clip_grid(tmp_path / "grid.png", _clips(), titles=titles)
  assert (_picture(tmp_path / "grid.png")[:, :60] < 128).any()


def test_normalised_and_unit_floats_give_the_picture_of_their_bytes(tmp_path):
  clips = _clips()
  unit = clips.astype(np.float32) / 255
  save_clip_grid(tmp_path / "bytes.png", clips)
  save_clip_grid(tmp_path / "unit.png", unit)
  mean, std = [0.4, 0.45, 0.5], [0.2, 0.225, 0.25]
  save_clip_grid(tmp_path / "normalised.png", (unit - mean) / std, mean=mean, std=std)
  expected = _picture(tmp_path / "bytes.png")
  for name in ("unit", "normalised"):
    np.testing.assert_array_equal(_picture(tmp_path / f"{name}.png"), expected)


@pytest.mark.parametrize("arrow", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_the_arrow_points_where_the_window_moves(tmp_path, arrow):
  clips = np.full((1, 4, 112, 112, 3), 128, np.uint8)
  save_clip_grid(tmp_path / "grid.png", clips, arrows=[arrow])
  strip = _accented(_picture(tmp_path / "grid.png"))
  rows, columns = np.nonzero(strip)
  axis, places = (0, columns) if arrow[0] else (1, rows)
  assert places.max() - places.min() > 40
  # The head is the widest part, so the mass lies towards the tip.
  middle = (places.max() + places.min()) / 2
  assert np.sign(places.mean() - middle) == arrow[axis]


def test_a_slower_arrow_is_shorter_and_no_motion_is_a_dot(tmp_path):
  clips = np.full((3, 4, 112, 112, 3), 128, np.uint8)
  arrows = np.array([[1, 0], [0.5, 0], [0, 0]])
  save_clip_grid(tmp_path / "grid.png", clips, titles=["fast", "slow", "still"])
  assert not _accented(_picture(tmp_path / "grid.png")).any()
  save_clip_grid(tmp_path / "grid.png", clips, arrows=arrows)
  rows = np.split(_accented(_picture(tmp_path / "grid.png"))[22:], 3)
  widths = [np.ptp(np.nonzero(row)[1]) for row in rows]
  assert widths[0] > 1.8 * widths[1] > 1.8 * 2 * widths[2] > 0


def test_boxes_are_outlined_in_every_frame(tmp_path):
  clips = np.full((1, 4, 112, 112, 3), 128, np.uint8)
  save_clip_grid(tmp_path / "grid.png", clips, boxes=[(20, 40, 50)], frames=4)
  marked = _accented(_picture(tmp_path / "grid.png"))
  for column in range(4):
    left = 6 + column * 118
    rows, columns = np.nonzero(marked[22:, left : left + 112])
    for found, expected in zip(
      (columns.min(), columns.max(), rows.min(), rows.max()),
      (20, 70, 40, 90),
      strict=True,
    ):
      assert abs(found - expected) <= 2


def test_the_gif_has_every_frame_and_an_arrow_above_each_clip(tmp_path):
  levels = np.linspace(40, 220, 7).astype(np.uint8)
  clips = np.broadcast_to(levels[None, :, None, None, None], (3, 7, 56, 56, 3))
  save_gif(tmp_path / "clips.gif", clips, arrows=[(1, 0), (0, -0.5), (0, 0)], fps=10)
  gif = Image.open(tmp_path / "clips.gif")
  assert gif.n_frames == 7 and gif.info["loop"] == 0
  for frame, level in enumerate(levels):
    gif.seek(frame)
    assert gif.info["duration"] == (100 if frame < 6 else 500)
    picture = np.asarray(gif.convert("RGB")).astype(int)
    assert picture.shape == (2 * 152, 2 * 118, 3)
    assert abs(picture[90, 60] - level).max() <= 2
    for row, column in ((0, 0), (0, 1), (1, 0)):
      strip = picture[row * 152 : row * 152 + 36, column * 118 : (column + 1) * 118]
      assert _accented(strip).sum() > 20
    assert (picture[160:, 125:] == 255).all()


def test_clips_of_another_shape_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r"\[N, T, H, W, 3\], found \(7, 56, 56, 3\)"):
    save_clip_grid(tmp_path / "grid.png", _clips()[0])


ROWS = [
  {"step": 10, "train/loss": 2.0, "train/accuracy": 0.2},
  {"step": 20, "train/loss": 1.0, "train/accuracy": 0.5, "eval/loss": 1.5},
  {"step": 30, "train/loss": float("nan"), "eval/loss": 1.2, "note": "text"},
]


def test_curves_draw_a_panel_per_metric_with_the_colour_of_each_phase(tmp_path):
  save_curves(tmp_path / "all.png", ROWS)
  save_curves(tmp_path / "eval.png", ROWS, keys=["eval/loss"])
  both, only_eval = (_picture(tmp_path / f"{n}.png") for n in ("all", "eval"))
  assert both.shape[1] == 2 * only_eval.shape[1]
  train = np.array([0x00, 0x79, 0x8C])
  for picture, shows_train in ((both, True), (only_eval, False)):
    assert _accented(picture).sum() > 100
    assert (abs(picture - train) < 12).all(-1).any() == shows_train


def test_what_was_measured_once_is_no_curve_beside_others(tmp_path):
  once = {"step": 30, "eval/retrieval_r1": 0.2, "eval/random_init/retrieval_r1": 0.1}
  save_curves(tmp_path / "without.png", ROWS)
  save_curves(tmp_path / "with.png", [*ROWS, once])
  save_curves(tmp_path / "alone.png", [once])
  without, beside = (_picture(tmp_path / f"{n}.png") for n in ("without", "with"))
  assert without.shape == beside.shape and (without == beside).all()
  assert (tmp_path / "alone.png").exists()


def test_no_curves_are_written_when_there_is_nothing_to_draw(tmp_path):
  save_curves(tmp_path / "none.png", [{"step": 1}])
  assert not (tmp_path / "none.png").exists()


def test_predictions_of_motion_say_how_many_are_right(monkeypatch, tmp_path):
  found = []
  monkeypatch.setattr(
    mosi.grids, "save_clip_grid", lambda *_, **options: found.append(options)
  )
  moves = np.array([(1, 0), (-0.5, 0), (0, 0)])
  labels, guesses = np.array([[0], [1], [2]]), np.array([[0], [2], [2]])
  shown = dict(chance=1 / 3, mean=0.0, std=1.0)
  mosi.save_predictions(tmp_path, None, labels, guesses, moves, **shown)
  (options,) = found
  assert (
    "below it what the network finds: 2 of 3 right, in green (guessing: 1)"
    in (options["caption"])
  )
  assert "moves the other way" in options["caption"]
  assert options["colors"] == [GOOD, BAD, GOOD]
  assert options["titles"][1] == "left 0.5\nfound: static"


def test_a_step_of_a_curriculum_is_told_in_words():
  assert mosi.step_text(1, 0, 1.0, (0.1, 0.5)) == "Step 1."
  assert "all of the frame moves" in mosi.step_text(1, 130, 0.0, (1.0, 1.0))
  text = mosi.step_text(66, 130, 0.5, (0.55, 0.75))
  assert "50% of the difficulty" in text and "55% to 75% as wide" in text


def test_the_page_of_maps_has_a_column_for_each_clip(tmp_path):
  script = load(ROOT / "docs" / "make_maps.py")
  left = np.zeros((3, script.SIZE, script.SIZE), np.float32)
  left[:, :, : script.SIZE // 2] = 1
  maps = {"trained": left, "random_init": 1 - left}
  columns = [("a", maps, left > 2), ("b", maps, left > 0)]
  script.draw(columns, tmp_path / "maps.jpg")
  picture, pitch = _picture(tmp_path / "maps.jpg"), script.SIZE + script.GAP
  assert picture.shape == (script.TOP + 2 * pitch, script.LABELS + 2 * pitch, 3)
  middle, quarter = script.TOP + script.SIZE // 2, script.SIZE // 4
  bright = picture[middle, script.LABELS + quarter]
  dark = picture[middle + pitch, script.LABELS + quarter]
  assert bright.sum() > dark.sum() + 100
