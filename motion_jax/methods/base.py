"""What every method provides; one train step and one loop serve them all."""

import pathlib
from typing import Any

import jax
from clu import metrics
from flax import nnx
from jax.sharding import Mesh

from motion_jax import sharding
from motion_jax.config import UserError

Tree = Any  # nested containers of arrays
Batch = dict[str, jax.Array]


class Method:
  """A pretext task or a supervised task.

  Write `metrics`, `clips_per_example`, `init`, `loss`, `predict`, `pretext` and
  `encoder`; the others may stay as they are.

  A batch holds the sampler's arrays [B, ...] and `valid` [B] bool, which is False for
  rows that could not be decoded and for padding: they count in no loss and no metric.
  """

  metrics: type[metrics.Collection]  # built from the outputs of `loss` and `predict`
  clips_per_example: int  # network inputs made from one row of the batch
  # Of supervised tasks: 'video_accuracy', 'frame_map'; see evaluation.evaluators.
  evaluators: tuple[str, ...] = ()

  def init(self, key: jax.Array) -> tuple[Tree, Tree]:
    """Returns (params, aux); aux is all that changes without a gradient."""
    raise NotImplementedError

  def aux_shardings(self, mesh: Mesh) -> Tree:
    """Returns where aux lies: shardings as a prefix of the tree, for `jax.jit`."""
    return sharding.replicated(mesh)

  def check_training(self, mesh: Mesh) -> None:
    """Raises UserError if a mesh is one that only evaluations can run on."""

  def loss(
    self, params: Tree, aux: Tree, batch: Batch, key: jax.Array, step: jax.Array
  ) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
    """Returns (loss, (aux, outputs)) of one training batch; `step` counts from 0."""
    raise NotImplementedError

  def after_update(self, params: Tree, aux: Tree, step: jax.Array) -> Tree:
    """Returns aux after the optimiser's update; momentum encoders follow here."""
    return aux

  def predict(self, params: Tree, aux: Tree, batch: Batch) -> dict[str, jax.Array]:
    """Returns per-example outputs in evaluation mode; a pure function of its inputs.

    Random choices follow from a row's `index` (`ops.draws.draw_by_row`), so that no
    metric depends on how rows are dealt out to batches.
    """
    raise NotImplementedError

  def pretext(self, batch: Batch, key: jax.Array, step: jax.Array) -> Tree:
    """Returns the inputs and labels that `loss` makes of the same arguments."""
    raise NotImplementedError

  def encoder(self, params: Tree, aux: Tree) -> nnx.Module:
    """Returns the network that is evaluated, saved and visualised."""
    raise NotImplementedError

  def with_encoder(
    self, params: Tree, aux: Tree, encoder: nnx.Module
  ) -> tuple[Tree, Tree]:
    """Returns (params, aux) with the arrays of another encoder of the same shape."""
    raise UserError(f"{type(self).__name__} cannot start from the weights of another")

  def classifiers(self, params: Tree, aux: Tree) -> list[nnx.Module]:
    """Returns what turns the encoder's features into classes, for Grad-CAM."""
    return []

  def with_classifiers(
    self, params: Tree, aux: Tree, classifiers: list[nnx.Module]
  ) -> tuple[Tree, Tree]:
    """Returns (params, aux) with the arrays of other `classifiers`, shaped alike."""
    raise UserError(f"{type(self).__name__} has no classifiers to be replaced")

  def save_figures(self, directory: pathlib.Path, batch: Batch, key: jax.Array) -> None:
    """Writes pictures of the first training inputs, labels drawn in.

    Of these arguments, `loss` makes what is drawn at step 0. Random choices are made
    for as many rows as `batch["extent"]` has, and only the first rows are drawn: the
    other arrays may end before.
    """

  def save_results(
    self, directory: pathlib.Path, params: Tree, aux: Tree, batch: Batch
  ) -> None:
    """Writes pictures of predictions for the held-out `batch`."""


def first_rows(count: int, batch: Batch, draws: Tree) -> tuple[Batch, Tree]:
  """The first rows of a batch and of its draws: `count`, or as many as are there."""
  count = min(count, *map(len, batch.values()))
  return jax.tree.map(lambda array: array[:count], (batch, draws))
