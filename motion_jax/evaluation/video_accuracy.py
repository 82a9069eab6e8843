"""Accuracy of a classifier over whole videos."""

import logging
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.inputs import test_views
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
      self._write(positions, scores)
    labels = np.asarray(source.labels)[positions]
    ks = telling((1, 5), len(self._classes))
    found = top_accuracy(scores, labels, ks=ks)
    return {f"eval/{name}": value for name, value in found.items()}

  def _write(self, positions, scores):
    source, guesses = self._held_out.source, scores.argmax(1)
    lines = ["video\tclass\tpredicted\tprobability"]
    for position, guess, row in zip(positions, guesses, scores, strict=True):
      true = self._classes[source.labels[position]]
      cells = (source.id_of(position), true, self._classes[guess])
      lines.append("\t".join((*cells, f"{row[guess]:.4f}")))
    text = "\n".join(lines) + "\n"
    path = self._workdir / "predictions.tsv"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


def _probabilities(rows, outputs):
  del rows
  return outputs["probabilities"]
