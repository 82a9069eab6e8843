"""Accuracy of a classifier over whole videos."""

import logging
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.inputs import test_views
from motion_jax.data.labels import has_labels
from motion_jax.data.sources import Source
from motion_jax.evaluation.held_out import HeldOut
from motion_jax.evaluation.measures.scores import telling, top_accuracy

logger = logging.getLogger("motion_jax")


class VideoAccuracy:
  """Accuracy over held-out videos, of `eval.clips` times `eval.crops` views.

  The score of a video is the mean softmax over its views. `predictions.tsv` gets a line
  with the true and the predicted class of every video.

  Args:
    held_out: of a method whose `predict` gives `probabilities`.
    classes: names of the labels.
    config: a whole config.
    workdir: of the run.
  """

  what = "the accuracy on whole held-out videos"

  def __init__(
    self,
    held_out: HeldOut,
    classes: Sequence[str],
    config: ConfigDict,
    workdir: pathlib.Path,
  ):
    self._held_out, self._classes, self._workdir = held_out, classes, workdir
    self._views = test_views(config)

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/top1': share of the videos}, and top5 of more than 5 classes."""
    source = self._held_out.source
    positions, scores = self._held_out.value_of_each(
      *(params, aux, self._views, _probabilities, self._workdir), dtype=np.float64
    )
    if not len(positions):
      raise UserError(f"no video of {source.name} can be decoded: there is no accuracy")
    lost = len(source) - len(positions)
    if lost:
      logger.warning("%d of %d videos do not count: damaged", lost, len(source))
    if jax.process_index() == 0:
      path = self._workdir / "predictions.tsv"
      write_predictions(path, source, self._classes, positions, scores)
    labels = np.asarray(source.labels)[positions]
    ks = telling((1, 5), len(self._classes))
    found = top_accuracy(scores, labels, ks=ks)
    return {f"eval/{name}": value for name, value in found.items()}


def write_predictions(
  path: pathlib.Path,
  source: Source,
  classes: Sequence[str],
  positions: Sequence[int],
  scores: np.ndarray,
) -> None:
  """Writes a line per video: its name, its class if known, what is found, how sure.

  Args:
    path: of a text file, its cells separated by tabs.
    source: the videos.
    classes: names of the scores.
    positions: [N] of videos in the source.
    scores: [N, classes] probabilities.
  """
  known = has_labels(source)
  header = ["video", *["class"] * known, "predicted", "probability"]
  lines = ["\t".join(header)]
  for position, row in zip(positions, scores, strict=True):
    true = [source.classes[source.labels[position]]] if known else []
    cells = [source.id_of(position), *true, classes[row.argmax()]]
    lines.append("\t".join([*cells, f"{row.max():.4f}"]))
  text = "\n".join(lines) + "\n"
  temporary = path.with_suffix(".tmp")
  temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
  os.replace(temporary, path)


def _probabilities(rows, outputs):
  del rows
  return outputs["probabilities"]
