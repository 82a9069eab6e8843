"""Frame mAP of a detector on AVA, over people that a person detector has found."""

import logging
import pathlib

import jax
import numpy as np

from motion_jax.data.inputs import detection_sampler
from motion_jax.evaluation.measures.detection import Boxes, ava_map

logger = logging.getLogger("motion_jax")


class FrameMap:
  """Frame mAP at IoU 0.5 on the validation part, by the official evaluation of AVA.

  `detections.csv` gets all scored boxes, in the official format of results.

  Args:
    held_out: of a detector.
    config: a whole config.
    workdir: of the run.
  """

  what = "frame mAP on the validation part"

  def __init__(self, held_out, config, workdir: pathlib.Path):
    self._held_out, self._workdir = held_out, workdir
    self._sampler = detection_sampler(config, held_out.source)

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/frame_map': in [0, 1]}."""
    source = self._held_out.source
    positions, found = self._held_out.value_of_each(
      params, aux, self._sampler, _scored_people, self._workdir
    )
    if not len(positions):  # then there are no axes of people and scores either
      return {"eval/frame_map": self._score([], found, found)}
    frames, people = np.nonzero(found[..., 0])
    names = [source.id_of(position) for position in positions[frames].tolist()]
    rows = found[frames, people]
    return {"eval/frame_map": self._score(names, rows[:, 1:5], rows[:, 5:])}

  def _score(self, names, boxes, scores) -> float:
    notes = self._held_out.source.notes
    if not names:
      logger.warning("no boxes of people in the validation part: frame mAP is 0")
      return 0.0
    actions = np.asarray(notes["evaluated"])
    people, columns = np.indices((len(names), len(actions))).reshape(2, -1)
    detections = Boxes(
      frames=[names[person] for person in people],
      boxes=boxes.reshape(-1, 4)[people],
      classes=actions[columns],
      scores=scores[people, actions[columns] - 1],
    )
    self._write(detections)
    return ava_map(notes, detections)[0]

  def _write(self, found: Boxes) -> None:
    if jax.process_index():
      return
    path = self._workdir / "detections.csv"
    with path.open("w", encoding="utf-8") as file:
      for name, box, action, value in zip(
        found.frames, found.boxes, found.classes, found.scores, strict=True
      ):
        corners = ",".join(f"{side:.4f}" for side in box)
        file.write(f"{name.replace('/', ',')},{corners},{action},{value:.5f}\n")


def _scored_people(rows, outputs):
  """[rows, people, 5 + actions]: whether someone is there, the box, the scores."""
  person = rows["person"][..., None]
  return np.concatenate([person, rows["boxes"], outputs["probabilities"]], axis=-1)
