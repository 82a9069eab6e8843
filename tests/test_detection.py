"""Frame mAP against reference values and hand-made cases."""

import pathlib

import numpy as np
import pytest

from motion_jax.evaluation.measures import detection
from motion_jax.evaluation.measures.detection import Boxes, frame_map

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "evaluation.npz")
BOX = (0.1, 0.1, 0.5, 0.5)
OTHER = (0.6, 0.6, 0.9, 0.9)


def boxes(*rows, scored=True):
  """Rows of (frame, class, score, box) or (frame, class, box)."""
  return Boxes(
    frames=[row[0] for row in rows],
    classes=np.asarray([row[1] for row in rows], int),
    boxes=np.asarray([row[-1] for row in rows], float).reshape(-1, 4),
    scores=np.asarray([row[2] for row in rows], float) if scored else None,
  )


def truth(*rows):
  return boxes(*rows, scored=False)


def test_average_precisions_are_those_of_the_reference():
  want = GOLDEN["map/ground_truth_frame_class_x1_y1_x2_y2"]
  have = GOLDEN["map/detection_frame_class_score_x1_y1_x2_y2"]
  expected = GOLDEN["map/ap_per_class"]
  mean, values = frame_map(
    Boxes(want[:, 0].tolist(), want[:, 2:], want[:, 1].astype(int)),
    Boxes(have[:, 0].tolist(), have[:, 3:], have[:, 1].astype(int), have[:, 2]),
    classes=range(len(expected)),
  )
  np.testing.assert_allclose(list(values.values()), expected, atol=1e-9)
  assert mean == pytest.approx(float(GOLDEN["map/mean_ap"]), abs=1e-9)


def test_the_envelope_is_integrated_over_recall():
  # Precision 1, 1/2, 2/3, 2/4, 3/5 at recall 1/4, 1/4, 2/4, 2/4, 3/4.
  correct = np.array([1, 0, 1, 0, 1], bool)
  found = detection.average_precision(correct, 4)
  assert found == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
  assert np.isnan(detection.average_precision(correct, 0))
  assert detection.average_precision(np.zeros(0, bool), 3) == 0


def test_a_box_is_found_only_once():
  want = truth(("a", 1, BOX), ("a", 1, OTHER))
  twice = boxes(("a", 1, 0.9, BOX), ("a", 1, 0.8, BOX), ("a", 1, 0.7, OTHER))
  mean, _ = frame_map(want, twice, classes=[1])
  assert mean == pytest.approx((1 + 2 / 3) / 2)


def test_only_the_box_that_is_overlapped_most_can_be_found():
  near, far = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.8)
  want = truth(("a", 1, near), ("a", 1, far))
  twice = boxes(("a", 1, 0.9, near), ("a", 1, 0.8, near))  # IoU with `far` is 0.8
  mean, _ = frame_map(want, twice, classes=[1])
  assert mean == pytest.approx(0.5)


def test_the_overlap_must_reach_half():
  want = truth(("a", 1, (0.0, 0.0, 1.0, 1.0)))
  for height, expected in ((0.5, 1.0), (0.49, 0.0)):
    have = boxes(("a", 1, 0.9, (0.0, 0.0, 1.0, height)))
    assert frame_map(want, have, classes=[1])[0] == expected


def test_frames_and_classes_do_not_mix():
  want = truth(("a", 1, BOX), ("b", 2, BOX))
  have = boxes(("b", 1, 0.9, BOX), ("a", 2, 0.9, BOX))
  assert frame_map(want, have, classes=[1, 2])[0] == 0


def test_detections_on_frames_without_ground_truth_are_false():
  want = truth(("a", 1, BOX))
  have = boxes(("z", 1, 0.9, BOX), ("a", 1, 0.8, BOX))
  assert frame_map(want, have, classes=[1])[0] == pytest.approx(0.5)


def test_excluded_frames_count_neither_way():
  want = truth(("a", 1, BOX), ("b", 1, BOX))
  have = boxes(("b", 1, 0.9, OTHER), ("a", 1, 0.8, BOX))
  assert frame_map(want, have, classes=[1])[0] == pytest.approx(0.25)
  assert frame_map(want, have, classes=[1], excluded=["b"])[0] == 1


def test_the_mean_is_over_evaluated_classes_with_ground_truth():
  want = truth(("a", 1, BOX), ("a", 2, BOX), ("a", 16, BOX))
  have = boxes(("a", 1, 0.9, BOX), ("a", 16, 0.9, OTHER), ("a", 3, 0.9, BOX))
  mean, values = frame_map(want, have, classes=[1, 2, 3])
  assert mean == pytest.approx(0.5)
  assert values[1] == 1 and values[2] == 0 and np.isnan(values[3])
  assert np.isnan(frame_map(want, have, classes=[7])[0])


def test_boxes_without_area_are_no_detections():
  want = truth(("a", 1, BOX))
  have = boxes(("a", 1, 0.9, (0.5, 0.5, 0.5, 0.9)), ("a", 1, 0.8, BOX))
  assert frame_map(want, have, classes=[1])[0] == 1


def test_no_detections_score_zero():
  assert frame_map(truth(("a", 1, BOX)), boxes(), classes=[1])[0] == 0
