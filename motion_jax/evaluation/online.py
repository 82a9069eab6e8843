"""k-NN of a few labelled videos, often: what an encoder is worth on its way."""

import logging
import pathlib

from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.inputs import Sources
from motion_jax.data.labels import common_classes, has_labels
from motion_jax.data.subsets import few_of_both
from motion_jax.evaluation.features import Features
from motion_jax.evaluation.frozen import FrozenEncoder
from motion_jax.evaluation.measures import retrieval

logger = logging.getLogger("motion_jax")

NEIGHBOURS = 10


class Online(FrozenEncoder):
  """As `Retrieval`, of a few classes, one clip per video: at most 512 are decoded.

  Args:
    method, config, mesh, workdir, like: see `FrozenEncoder`.
    sources: both parts, of each of which `eval.online_videos` are taken.

  Attributes:
    size: numbers of held-out videos and of classes.

  Raises:
    UserError: if the data have no labels, or they do not serve.
  """

  what = "k-NN of a few videos"
  random_init = "random_init_online.json"

  def __init__(
    self,
    method,
    config: ConfigDict,
    sources: Sources,
    mesh: Mesh,
    workdir: pathlib.Path,
    *,
    like: FrozenEncoder | None = None,
  ):
    common_classes(sources.train, sources.heldout)
    few = few_of_both(sources.train, sources.heldout, config.eval.online_videos)
    self.size = len(few[1]), len({*few[1].labels})
    parts = dict(zip(("training", "held-out"), few, strict=True))
    config = config.copy_and_resolve_references()
    config.eval.clips = 1
    super().__init__(method, config, parts, mesh, workdir, like=like)

  def scores(self, train: Features, heldout: Features) -> dict[str, float]:
    """Returns online_knn_top1 and online_retrieval_r1, in [0, 1]."""
    sets = (heldout.features, heldout.labels, train.features, train.labels)
    try:
      knn = retrieval.knn_accuracy(*sets, k=NEIGHBOURS)
      nearest = retrieval.recall(*sets, ks=(1,))
    except ValueError as error:  # all are damaged, or the encoder's values not finite
      logger.warning("no k-NN: %s", error)
      return {}
    return {"online_knn_top1": knn["top1"], "online_retrieval_r1": nearest["r1"]}


def make_online(
  method,
  config: ConfigDict,
  sources: Sources,
  mesh: Mesh,
  workdir: pathlib.Path,
  evaluators: list,
) -> list[Online]:
  """[an `Online`] if a config asks for it and the data have labels, else [].

  Args:
    method, config, sources, mesh, workdir: see `evaluators.make_evaluators`.
    evaluators: what that has made; one of features lends its compiled network.

  Raises:
    UserError: for a number of videos below 0.
  """
  wanted = config.eval.get("online_videos", 0)  # supervised ones have no such key
  if wanted < 0:
    raise UserError(f"eval.online_videos={wanted} must be 0, for none, or more")
  if not wanted or not (has_labels(sources.train) and has_labels(sources.heldout)):
    return []
  like = next((e for e in evaluators if isinstance(e, FrozenEncoder)), None)
  try:
    return [Online(method, config, sources, mesh, workdir, like=like)]
  except UserError as error:
    logger.info("no k-NN during the training: %s", error)
    return []
