"""What every method provides; one train step and one loop serve them all."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from clu import metrics
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.clips import Clip, Sampler, Views
from motion_jax.data.flow_records import FlowRecords, open_flow
from motion_jax.data.inputs import configured_source
from motion_jax.data.sources import Source
from motion_jax.methods.settings import check_settings
from motion_jax.models.precision import FLOAT32
from motion_jax.scale import sharding

Tree = Any  # nested containers of arrays
Batch = dict[str, jax.Array]


class Method:
  """A pretext task or a supervised task.

  Of a method with one network, which has an `encoder`, write `metrics`,
  `clips_per_example`, `sampler`, `build`, `pretext`, `loss` and `predict`; the others
  may stay as they are. `params` is what the optimiser changes; `aux` all else that a
  training changes or keeps, here {'stats': statistics of batch normalisation}.

  A batch holds the sampler's arrays [B, ...], the row's `index` [B] int32 in the source
  and `valid` [B] bool, which is False for rows that could not be decoded and for
  padding: they count in no loss and no metric.

  Args:
    config: a whole config.
    settings: the method's own section; None for `config.method`.

  Raises:
    UserError: for settings that cannot work.
  """

  metrics: type[metrics.Collection]  # built from the outputs of `loss` and `predict`
  # What of them the console tells; all are in metrics.jsonl.
  headline: tuple[str, ...] = ("loss", "pretext_accuracy")
  chance: Mapping[str, float] = {}  # what guessing gets, of metrics that are shares
  # Of classifiers of motion: the class of each head that stands still.
  still: tuple[int, ...] | None = None
  clips_per_example: float = 1  # network inputs made from one row of the batch
  # Of supervised tasks: 'video_accuracy', 'frame_map'; see evaluation.evaluators.
  evaluators: tuple[str, ...] = ()
  kept = {"stats": nnx.BatchStat}  # the network's part of aux: filters of `nnx.split`

  def __init__(self, config: ConfigDict, settings: ConfigDict | None = None):
    self.config = config
    self.settings = config.method if settings is None else settings
    check_settings(config, self.settings)

  @staticmethod
  def sized(config: ConfigDict, batch_size: int) -> dict[str, Any]:
    """Returns keys of a config that must change with the batch, and their values."""
    return {}

  def sampler(self, split: str, source: Source | None = None) -> Sampler:
    """Returns what a batch takes from a record; see `data.clips`.

    It is free: features are of `method.frames` frames at `data.interval` and `data.fps`
    in any case. Several clips of one video are decoded once and cut on the device, one
    after the other, `clips_per_example` of them.

    Args:
      split: 'train', or 'heldout' for what `predict` gets.
      source: the records of this split, if they are open already.
    """
    raise NotImplementedError

  def prepared_motion(self) -> dict[str, Any] | None:
    """Returns the motion that a run prepares by itself for the embedded videos, if any.

    That is `store`, `interval` and `short_side` of `open_flow`.
    """
    return None

  def build(self, rngs: nnx.Rngs) -> nnx.Module:
    """Returns a new network, whose `encoder` is evaluated, saved and visualised."""
    raise NotImplementedError

  def heads(self, network: nnx.Module) -> list[nnx.Module]:
    """Returns what of a network turns the encoder's features into classes, if any."""
    return []

  def pretext(self, batch: Batch, key: jax.Array, step: jax.Array) -> Tree:
    """Returns the inputs and labels that `loss` makes of the same arguments."""
    raise NotImplementedError

  def loss(
    self, params: Tree, aux: Tree, batch: Batch, key: jax.Array, step: jax.Array
  ) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
    """Returns (loss, (aux, outputs)) of one training batch; `step` counts from 0.

    Outputs hold what `metrics` reads, a value per network input, and `mask`: `valid`,
    repeated for every clip of a row. Without it rows that are none would count.
    """
    raise NotImplementedError

  def predict(self, params: Tree, aux: Tree, batch: Batch) -> dict[str, jax.Array]:
    """Returns the outputs, as `loss` has them, in evaluation mode: a pure function.

    Random choices, if there are some, follow from a row's `index`
    (`ops.draws.draw_by_row`), so that no metric depends on how rows are dealt out to
    batches.
    """
    raise NotImplementedError

  def measured(self, outputs: dict[str, jax.Array]) -> metrics.Collection:
    """Returns the metrics of one batch from its outputs.

    Raises:
      ValueError: if outputs lack what is read, or are not one per network input.
    """
    task = type(self).__name__
    shapes = {name: jnp.shape(array) for name, array in outputs.items()}
    if "mask" not in shapes or len({shape[:1] for shape in shapes.values()}) > 1:
      raise ValueError(
        f"the outputs of {task} must have a value per network input each, 'mask' among "
        f"them: batch['valid'], repeated for every clip of a row; found {shapes}"
      )
    try:
      return self.metrics.single_from_model_output(**outputs)
    except KeyError as error:
      raise ValueError(f"the outputs of {task} lack {error}, a metric's") from error

  def init(self, key: jax.Array) -> tuple[Tree, Tree]:
    """Returns the first (params, aux)."""
    return self._split(self.build(nnx.Rngs(key)))[1:]

  def network(self, params: Tree, aux: Tree, *, train: bool = False) -> nnx.Module:
    """Returns the network with these arrays."""
    network = nnx.merge(self._graphdef, params, *(aux[name] for name in self.kept))
    network.train() if train else network.eval()
    return network

  def call(self, params: Tree, aux: Tree, *inputs, train: bool) -> tuple[Any, Tree]:
    """Returns the network's result, and aux with the statistics it has tracked."""
    with jax.named_scope("network"):
      network = self.network(params, aux, train=train)
      result = network(*inputs)
    return result, {**aux, "stats": nnx.as_pure(nnx.state(network, nnx.BatchStat))}

  def after_update(self, params: Tree, aux: Tree, step: jax.Array) -> Tree:
    """Returns aux after the optimiser's update; momentum encoders follow here."""
    return aux

  def aux_shardings(self, mesh: Mesh) -> Tree:
    """Returns where aux lies: shardings as a prefix of the tree, for `jax.jit`."""
    return sharding.replicated(mesh)

  def check_training(self, mesh: Mesh) -> None:
    """Raises UserError for a batch or mesh that only evaluations can run on."""

  def encoder(self, params: Tree, aux: Tree) -> nnx.Module:
    """Returns the encoder, in evaluation mode."""
    return self.network(params, aux).encoder

  def with_encoder(
    self, params: Tree, aux: Tree, encoder: nnx.Module
  ) -> tuple[Tree, Tree]:
    """Returns (params, aux) with the arrays of another encoder of the same shape."""
    network = self.network(params, aux)
    nnx.update(network.encoder, nnx.state(encoder))
    return self._split(network)[1:]

  def classifiers(self, params: Tree, aux: Tree) -> list[nnx.Module]:
    """Returns what turns the encoder's features into classes, for Grad-CAM."""
    return self.heads(self.network(params, aux))

  def with_classifiers(
    self, params: Tree, aux: Tree, classifiers: list[nnx.Module]
  ) -> tuple[Tree, Tree]:
    """Returns (params, aux) with the arrays of other `classifiers`, shaped alike."""
    network = self.network(params, aux)
    for own, other in zip(self.heads(network), classifiers, strict=True):
      nnx.update(own, nnx.state(other))
    return self._split(network)[1:]

  def save_figures(self, directory: pathlib.Path, batch: Batch, key: jax.Array) -> None:
    """Writes pictures of the first training inputs, labels drawn in.

    Of these arguments, `loss` makes what is drawn at step 0. With several processes
    `extent` has the rows of all of them, the other arrays those of this one: make the
    random choices for all rows of `extent`, and draw the first rows.
    """

  def save_results(
    self, directory: pathlib.Path, params: Tree, aux: Tree, batch: Batch
  ) -> None:
    """Writes pictures of predictions for the held-out `batch`."""

  @property
  def _clip(self) -> dict[str, Any]:
    """Length, pace and sizes of clips, as their samplers take them."""
    data = self.config.data
    return dict(
      frames=self.settings.frames,
      interval=data.interval,
      fps=data.fps,
      short_side=data.short_side,
      canvas=tuple(data.canvas),
    )

  def _open_motion(self, split: str, source: Source | None, **kind) -> FlowRecords:
    """Opens what `data.flow` names of a split's videos; `kind` as for `open_flow`."""
    data = self.config.data
    source = configured_source(data, split) if source is None else source
    return open_flow(source, method=data.flow, data_dir=data.data_dir, **kind)

  def _clip_sampler(self, split: str) -> Sampler:
    """A clip at a random time, of held-out videos the one in the middle."""
    return Views(1, **self._clip) if split == "heldout" else Clip(**self._clip)

  @functools.cached_property
  def _graphdef(self):
    return self._split(nnx.eval_shape(lambda: self.build(nnx.Rngs(0))))[0]

  def _split(self, network):
    trained = getattr(network, "is_trained", nnx.Param)
    graphdef, params, *rest = nnx.split(network, trained, *self.kept.values())
    params, *rest = nnx.as_pure((params, *rest))
    return graphdef, params, dict(zip(self.kept, rest, strict=True))

  def _check_room(self) -> None:
    """Raises UserError if a crop of `method.size` does not fit into the frames."""
    size, data = self.settings.size, self.config.data
    if min(*data.canvas, data.short_side) < size:
      raise UserError(
        f"a crop of method.size={size} pixels does not fit into data.short_side="
        f"{data.short_side}, data.canvas={tuple(data.canvas)}: make these larger"
      )

  def _check_pretext(self, **shapes: tuple[int, ...]) -> None:
    """Lets the operations refuse settings now instead of in the first step.

    Args:
      **shapes: of the arrays of one row, uint8 but for `extent`.
    """
    shapes = {"extent": (2,), "label": (), **shapes}
    wide = ("extent", "label")
    batch = {
      name: jax.ShapeDtypeStruct((1, *shape), jnp.int32 if name in wide else jnp.uint8)
      for name, shape in shapes.items()
    }
    jax.eval_shape(functools.partial(self.pretext, step=0), batch, jax.random.key(0))


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """The mean of the values where `mask`, of the same shape; 0 if that is nowhere."""
  if jnp.shape(values) != jnp.shape(mask):
    raise ValueError(
      f"losses {jnp.shape(values)} and their mask {jnp.shape(mask)}: give one loss per "
      "network input; labels [B] beside outputs [B, 1] make [B, B]"
    )
  return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1)


def matrix_penalty(decay: float, params: Tree) -> jax.Array | float:
  """`decay` / 2 times the squared length of the matrices among some parameters."""
  if not decay:
    return 0.0
  matrices = [x for x in jax.tree.leaves(params) if x.ndim > 1]
  return decay / 2 * sum(jnp.vdot(x, x, precision=FLOAT32) for x in matrices)


def jitter_of(settings: ConfigDict) -> dict[str, float]:
  """Strengths of the colour jitter, as `augment.draw_jitter` takes them."""
  names = ("brightness", "contrast", "saturation", "hue", "grayscale")
  return {name: settings[name] for name in names}


def first_rows(count: int, batch: Batch, draws: Tree) -> tuple[Batch, Tree]:
  """The first rows of a batch and of its draws: `count`, or as many as are there."""
  count = min(count, *map(len, batch.values()))
  return jax.tree.map(lambda array: array[:count], (batch, draws))
