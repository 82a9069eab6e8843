"""Retrieval, k-NN and a linear classifier on frozen features."""

import logging
import pathlib

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.data.inputs import Sources
from motion_jax.data.labels import common_classes, same_classes, warn_of_gaps
from motion_jax.data.subsets import subset_of_size
from motion_jax.evaluation.features import Features
from motion_jax.evaluation.frozen import FrozenEncoder
from motion_jax.evaluation.groups import check_groups, groups_of, without_each
from motion_jax.evaluation.measures import linear, retrieval

logger = logging.getLogger("motion_jax")


class Retrieval(FrozenEncoder):
  """The training part is the gallery, the held-out part asks.

  With groups each of them asks in turn, and the gallery is all videos of the others:
  those of both parts, whose features are computed once.

  Args:
    method, config, mesh, workdir: see `FrozenEncoder`; `eval.linear` adds the linear
      classifier; `eval.groups`, if given, tells the groups (see `groups.groups_of`).
    sources: both parts, of each of which `eval.max_videos` are taken.

  Raises:
    UserError: if the data have no labels or groups, or they do not serve.
  """

  what = "retrieval and classifiers on features of whole videos"

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
    parts = {"training": train, "held-out": heldout}
    rule = config.eval.get("groups")
    if rule:
      same_classes(train, heldout)
    else:
      common_classes(train, heldout)
      warn_of_gaps(train, heldout)
    self._groups = [groups_of(part, rule) for part in parts.values()] if rule else []
    if rule:
      labels = np.concatenate([part.labels for part in parts.values()])
      alone = check_groups(np.concatenate(self._groups), labels, rule)
      self._with_linear &= not len(alone)
      _warn_of_lone(alone, train.classes, linear=config.eval.linear)
    super().__init__(method, config, parts, mesh, workdir)

  def scores(self, train: Features, heldout: Features) -> dict[str, float]:
    """Returns shares of the held-out videos, in [0, 1].

    They are retrieval_r1 to retrieval_r50 (below the number of training videos),
    retrieval_centred_r1 ..., knn_top1, linear_top1. With groups they are shares of all
    videos, of which those of a group are centred by themselves.
    """
    if not self._groups:
      return self._scores(
        heldout.features, heldout.labels, train.features, train.labels
      )
    found = train, heldout
    features = np.concatenate([part.features for part in found])
    labels = np.concatenate([part.labels for part in found])
    groups = np.concatenate(
      [g[part.positions] for g, part in zip(self._groups, found, strict=True)]
    )
    centred = np.unique(groups, return_counts=True)[1].min() > 1
    if not centred:
      logger.info("no retrieval_centred: some groups have one video, which is its mean")
    return without_each(
      groups,
      lambda out: self._scores(
        features[out], labels[out], features[~out], labels[~out], centred=centred
      ),
    )

  def _scores(self, *sets, centred: bool = True) -> dict[str, float]:
    """Of queries and their labels, and of a gallery and its labels."""
    jobs = {"retrieval_": lambda: retrieval.recall(*sets)}
    if centred:
      jobs["retrieval_centred_"] = lambda: retrieval.recall(*sets, centred=True)
    jobs["knn_"] = lambda: _top1(retrieval.knn_accuracy(*sets))
    if self._with_linear:
      jobs["linear_"] = lambda: _top1(linear.linear_accuracy(*sets[2:], *sets[:2]))
    values = {}
    for prefix, job in jobs.items():
      try:
        values |= {f"{prefix}{name}": value for name, value in job().items()}
      except ValueError as error:  # e.g. a class whose only video is damaged
        logger.warning("no %sscore: %s", prefix, error)
    return values


def _warn_of_lone(labels, classes, *, linear):
  if len(labels):
    names = ", ".join(classes[label] for label in labels[:5])
    logger.warning(
      "the videos of %d of %d classes lie in a single group each and are never right%s:"
      " %s%s",
      *(len(labels), len(classes)),
      ", and there is no linear_top1" if linear else "",
      names,
      ", ..." if len(labels) > 5 else "",
    )


def _top1(scores):
  return {"top1": scores["top1"]}
