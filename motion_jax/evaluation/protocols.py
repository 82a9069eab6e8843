"""Pairs of actions (ASLAN) and scenes (YUPENN), by linear SVMs on frozen features.

As in MAS (Wang et al., CVPR 2019, sections 4.5 and 4.6): a video is the mean feature of
all its clips, each of which shares half its frames with the next.
"""

import logging
import pathlib

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.config import UserError
from motion_jax.data.sources import Source
from motion_jax.evaluation.features import Features
from motion_jax.evaluation.frozen import FrozenEncoder
from motion_jax.evaluation.measures import pairs, scenes

logger = logging.getLogger("motion_jax")


class _OfAllClips(FrozenEncoder):
  """A protocol of MAS.

  Args:
    method, config, mesh, workdir: see `FrozenEncoder`.
    source: all videos of the prepared data set.
    cost: C of the linear SVMs.
  """

  def __init__(
    self,
    method,
    config: ConfigDict,
    source: Source,
    mesh: Mesh,
    workdir: pathlib.Path,
    *,
    cost: float = 1.0,
  ):
    config = config.copy_and_resolve_references()
    with config.unlocked():
      config.method.segments = False
      config.eval.clips, config.eval.overlap, config.eval.cost = 0, 0.5, cost
    super().__init__(method, config, {source.name: source}, mesh, workdir)
    self._source = source


class Aslan(_OfAllClips):
  """Same action or not; raises UserError for a data set without pairs."""

  def __init__(self, method, config, source: Source, *options, **named):
    if "pairs" not in source.notes:
      raise UserError(f"{source.name} holds no pairs; delete it and prepare it again")
    super().__init__(method, config, source, *options, **named)

  def scores(self, found: Features) -> dict[str, float]:
    """Returns aslan_accuracy, aslan_accuracy_error and aslan_auc, in [0, 1]."""
    source, all_pairs = self._source, self._source.notes["pairs"]
    rows = {source.id_of(place): row for row, place in enumerate(found.positions)}
    usable = [pair for pair in all_pairs if {*pair[:2]} <= rows.keys()]
    if len(usable) < len(all_pairs):
      logger.warning("%d of %d pairs count", len(usable), len(all_pairs))
    if not usable:
      raise UserError(f"no pair of {source.name} has both videos")
    lengths = np.linalg.norm(found.features, axis=1, keepdims=True)
    features = found.features / np.maximum(lengths, 1e-12)
    one, other = (features[[rows[pair[side]] for pair in usable]] for side in (0, 1))
    same, folds = (np.asarray([pair[place] for pair in usable]) for place in (2, 3))
    measures = pairs.pair_measures(one, other)
    values = pairs.pair_scores(measures, same, folds, cost=self._config.eval.cost)
    return {f"aslan_{name}": value for name, value in values.items()}


class Yupenn(_OfAllClips):
  """Which scene it is; every video is left out once."""

  def scores(self, found: Features) -> dict[str, float]:
    """Returns yupenn_accuracy, in [0, 1]."""
    with logs.progress_bar(len(found.labels), "videos left out") as show:
      options = dict(cost=self._config.eval.cost, show=show)
      accuracy = scenes.leave_one_out_accuracy(found.features, found.labels, **options)
    return {"yupenn_accuracy": accuracy}


PROTOCOLS = {"aslan": Aslan, "yupenn": Yupenn}
