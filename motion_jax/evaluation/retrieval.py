"""Retrieval, k-NN and a linear classifier on frozen features."""

import logging
import pathlib

from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.data.inputs import Sources
from motion_jax.data.labels import common_classes, warn_of_gaps
from motion_jax.data.subsets import subset_of_size
from motion_jax.evaluation.features import Features
from motion_jax.evaluation.frozen import FrozenEncoder
from motion_jax.evaluation.measures import linear, retrieval

logger = logging.getLogger("motion_jax")


class Retrieval(FrozenEncoder):
  """The training part is the gallery, the held-out part asks.

  Args:
    method, config, mesh, workdir: see `FrozenEncoder`; `eval.linear` adds the linear
      classifier.
    sources: both parts, of each of which `eval.max_videos` are taken.

  Raises:
    UserError: if the data have no labels, or they do not serve.
  """

  def __init__(
    self,
    method,
    config: ConfigDict,
    sources: Sources,
    mesh: Mesh,
    workdir: pathlib.Path,
  ):
    limit, self._with_linear = config.eval.max_videos, config.eval.linear
    train, heldout = (
      subset_of_size(part, limit) for part in (sources.train, sources.heldout)
    )
    common_classes(train, heldout)
    warn_of_gaps(train, heldout)
    parts = {"training": train, "held-out": heldout}
    super().__init__(method, config, parts, mesh, workdir)

  def scores(self, train: Features, heldout: Features) -> dict[str, float]:
    """Returns shares of the held-out videos, in [0, 1].

    They are retrieval_r1 to retrieval_r50 (below the number of training videos),
    retrieval_centred_r1 ..., knn_top1, linear_top1.
    """
    sets = (heldout.features, heldout.labels, train.features, train.labels)
    jobs = {
      "retrieval_": lambda: retrieval.recall(*sets),
      "retrieval_centred_": lambda: retrieval.recall(*sets, centred=True),
      "knn_": lambda: _top1(retrieval.knn_accuracy(*sets)),
    }
    if self._with_linear:
      jobs["linear_"] = lambda: _top1(linear.linear_accuracy(*sets[2:], *sets[:2]))
    values = {}
    for prefix, job in jobs.items():
      try:
        values |= {f"{prefix}{name}": value for name, value in job().items()}
      except ValueError as error:  # e.g. a class whose only video is damaged
        logger.warning("no %sscore: %s", prefix, error)
    return values


def _top1(scores):
  return {"top1": scores["top1"]}
