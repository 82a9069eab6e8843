"""Pictures of MoDist's clips: what they show, and of which kind of motion."""

import numpy as np
import pytest
from PIL import Image

from motion_jax.visualize import modist

NORMAL = dict(mean=(0.5,) * 3, std=(0.25,) * 3)


def clips(frames=4, motion=True):
  rng = np.random.default_rng(0)
  visual = rng.normal(size=(2, frames, 16, 16, 3)).astype(np.float32)
  edges = np.zeros((2, 2 * frames, 16, 16, 3), np.float32)
  edges[:, :, 4:9, 4:9] = 0.03
  pairs = {"motion_key": edges, "motion_query": edges} if motion else {}
  return {"visual_key": visual, "visual_query": visual, **pairs}


@pytest.mark.parametrize(("motion", "rows"), [(True, 8), (False, 4)])
def test_a_picture_has_a_row_for_every_clip(tmp_path, motion, rows):
  modist.save_pretext(tmp_path / "p", clips(motion=motion), kind="edges", **NORMAL)
  with Image.open(tmp_path / "p.png") as picture:
    height = picture.height
  assert rows * 112 < height < rows * 112 + 100
  with Image.open(tmp_path / "p.gif") as animation:
    assert animation.n_frames == 4


def test_faint_edges_are_shown_bright_and_nothing_stays_black():
  shown = modist.motion_pictures(clips()["motion_key"][0], "edges")
  assert shown.dtype == np.uint8
  assert (shown[:, 4:9, 4:9] == 255).all()
  assert shown[:, :4].max() == 0
  assert modist.motion_pictures(np.zeros((2, 8, 8, 3)), "edges").max() == 0


def test_flow_to_the_right_is_red_and_to_the_left_is_cyan():
  flow = np.zeros((1, 8, 8, 2), np.float32)
  flow[..., :4, 0], flow[..., 4:, 0] = 0.5, -0.5
  shown = modist.motion_pictures(flow, "flow")
  assert shown[0, 0, 0].tolist() == [255, 0, 0]
  assert shown[0, 0, 7].tolist() == [0, 255, 255]


def test_no_difference_is_grey():
  difference = np.zeros((1, 8, 8, 3), np.float32)
  difference[0, 0] = 1
  shown = modist.motion_pictures(difference, "frame_difference")
  assert shown[0, 0, 0].tolist() == [255] * 3
  assert shown[0, 5, 5].tolist() == [128] * 3
