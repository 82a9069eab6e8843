"""Scores a file of detections on AVA, as the official evaluation does."""

import logging
import pathlib

import numpy as np
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.config import UserError
from motion_jax.data import ava_files, open_source
from motion_jax.evaluation.measures.detection import Boxes, ava_map

logger = logging.getLogger("motion_jax")


def evaluate_results(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Frame mAP at IoU 0.5 of a file of detections; see configs/evaluate.py.

  Args:
    config: `results`, a csv file of lines video,second,x1,y1,x2,y2,action,score;
      `data.name` and `data.data_dir`, the prepared AVA.
    workdir: folder for evaluation.json, which also has the average precision of each
      action.

  Returns:
    {'eval/frame_map': in [0, 1]}.

  Raises:
    UserError: if a file is missing or is another one; the message has the fix.
  """
  if not config.results:
    raise UserError("say which detections: --config.results=FILE.csv")
  name, data_dir = config.data.name, config.data.data_dir
  source = open_source(name, split="heldout", data_dir=data_dir)
  rows = ava_files.read_boxes(config.results, scored=True)
  if not rows:
    raise UserError(f"{config.results} holds no detections")
  found = Boxes(
    frames=[ava_files.record_id(frame) for frame, *_ in rows],
    boxes=np.asarray([box for _, box, *_ in rows], float),
    classes=np.asarray([action for *_, action, _ in rows], int),
    scores=np.asarray([value for *_, value in rows], float),
  )
  mean, values = ava_map(source.notes, found)
  actions = source.notes["actions"]
  precision = {
    actions[str(number)]: None if np.isnan(value) else value
    for number, value in values.items()
  }
  path = workdir / "evaluation.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  about = {"results": str(config.results), "eval/frame_map": mean}
  logs.write_json(path, {**about, "average_precision": precision})
  logger.info("frame mAP %.4f, of %d boxes; written to %s", mean, len(rows), path)
  return {"eval/frame_map": mean}
