"""Accuracy of a classifier over whole videos."""

import logging
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from motion_jax.data.inputs import test_views
from motion_jax.evaluation.held_out import HeldOut
from motion_jax.evaluation.measures.scores import telling
from motion_jax.evaluation.measures.views import VideoScores

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
    scores = VideoScores(len(source), len(self._classes))
    for batch, found in self._held_out.outputs(params, aux, self._views):
      scores.add(batch["index"], batch["valid"], found["probabilities"])
    lost = len(source) - int(scores.seen().sum())
    if lost:
      logger.warning("%d of %d videos do not count: damaged", lost, len(source))
    if jax.process_index() == 0:
      self._write(scores)
    labels = np.asarray(source.labels)
    ks = telling((1, 5), len(self._classes))
    return {f"eval/top{k}": scores.accuracy(labels, k) for k in ks}

  def _write(self, scores):
    source, best = self._held_out.source, scores.probabilities()
    lines = ["video\tclass\tpredicted\tprobability"]
    for index in np.flatnonzero(scores.seen()):
      guess = int(best[index].argmax())
      true = self._classes[source.labels[index]]
      cells = (source.id_of(index), true, self._classes[guess])
      lines.append("\t".join((*cells, f"{best[index, guess]:.4f}")))
    text = "\n".join(lines) + "\n"
    path = self._workdir / "predictions.tsv"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
