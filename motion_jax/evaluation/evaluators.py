"""Which evaluators a config asks for."""

import logging
import pathlib
from collections.abc import Callable

from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.inputs import Sources
from motion_jax.data.labels import common_classes, has_labels
from motion_jax.evaluation.frame_map import FrameMap
from motion_jax.evaluation.held_out import HeldOut
from motion_jax.evaluation.retrieval import Retrieval
from motion_jax.evaluation.video_accuracy import VideoAccuracy

logger = logging.getLogger("motion_jax")

# Maps (params, aux) of a method to {'eval/<name>': value}; `what` says of what.
Evaluator = Callable[..., dict[str, float]]


def make_evaluators(
  method, config: ConfigDict, sources: Sources, mesh: Mesh, workdir: pathlib.Path
) -> list[Evaluator]:
  """Builds the evaluators of a config.

  The first one measures the method's own metrics, which training does at `eval.every`;
  those at `eval.test_every` and the end follow: what the method names in `evaluators`,
  and, with `eval.probe`, what its encoder is worth, if the data have labels.

  Args:
    method: see `methods.base.Method`.
    config: a whole config.
    sources: its data.
    mesh: from `sharding.make_mesh`.
    workdir: for lists of predictions and of bad files, and what is unfinished.

  Raises:
    UserError: for `eval.groups` or `eval.stage` that cannot be had.
  """
  bad_files = workdir / "bad_files.txt"
  held_out = HeldOut(sources.heldout, method, config, mesh, bad_files)
  found: list[Evaluator] = [held_out]
  if "video_accuracy" in method.evaluators:
    classes = common_classes(sources.train, sources.heldout)
    found.append(VideoAccuracy(held_out, classes, config, workdir))
  if "frame_map" in method.evaluators:
    found.append(FrameMap(held_out, config, workdir))
  if config.eval.get("probe", False):  # supervised trainings have no such key
    try:
      found.append(Retrieval(method, config, sources, mesh, workdir))
    except UserError as error:
      if config.eval.get("groups") or config.eval.get("stage"):
        raise  # they ask for nothing else
      labelled = has_labels(sources.train) and has_labels(sources.heldout)
      logger.info("no retrieval: %s", error if labelled else "the data have no labels")
  return found
