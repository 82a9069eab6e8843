"""MoSI, MoDist and MAS at once, on one network.

Beyond the papers. Every objective is the method of its own file, unchanged; they share
the encoder's weights and the videos of a batch.
"""

from functools import partial

import jax
import jax.numpy as jnp
from clu import metrics
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.motion import Distill
from motion_jax.methods.base import Method
from motion_jax.methods.mas import Mas
from motion_jax.methods.modist import Modist
from motion_jax.methods.mosi import Mosi
from motion_jax.ops.draws import draw_by_row
from motion_jax.ops.still_sources import cut_squares, draw_squares

PARTS = {"mosi": Mosi, "modist": Modist, "mas": Mas}
_SHARED = ("frames", "size", "mean", "std")  # of `method`, alike for all parts
_SOURCES = len(PARTS)  # number of the key that draws MoSI's frames


class Joint(Method):
  """The pretext tasks of a config with `method.name = 'joint'`; see `Method`.

  A part is a method with the config's section of its name as its settings and a weight
  `method.<name>_weight`; 0 leaves it out. The parts share the encoder's parameters.
  Heads, BatchNorm statistics, momentum copies and queues are a part's own, in
  `params[name]` and `aux[name]`: pseudo-motion clips, distorted clips and plain clips
  have different statistics.

  Rows are MoDist's. MoDist takes all of a row; MAS the RGB query clip; MoSI a random
  frame of that clip, of every `method.mosi_every`-th row (in evaluation of every row),
  a square of which is resized to `method.mosi_side` pixels.
  """

  def __init__(self, config, settings=None):
    super().__init__(config, settings)
    method = self.settings
    weights = {name: method[f"{name}_weight"] for name in PARTS}
    if not any(weights.values()):
      raise UserError(
        f"the weights are {weights}, and one of them at least must be above 0: set "
        "method.mosi_weight, modist_weight or mas_weight"
      )
    self._weights = {name: weight for name, weight in weights.items() if weight}
    if "mosi" in self._weights and method.mosi_side <= method.size:
      raise UserError(
        f"method.mosi_side={method.mosi_side} gives crops of method.size={method.size} "
        "pixels no room to move; twice that or more is right, the paper has 320 and 112"
      )
    self._check_every(config.model.bn_groups, "model.bn_groups")
    self.parts = {name: self._part(name) for name in self._weights}
    self.metrics = _metrics(self.parts, self._weights)
    self.chance = {
      f"{name}_{key}": share
      for name, part in self.parts.items()
      for key, share in part.chance.items()
    }
    pretexts = ("mosi_pretext_accuracy", "modist_pretext_accuracy", "mas_loss")
    self.headline = ("loss", *pretexts)
    shares = {"mosi": 1 / method.mosi_every}  # of the rows: its sources
    self.clips_per_example = sum(
      part.clips_per_example * shares.get(name, 1) for name, part in self.parts.items()
    )

  @staticmethod
  def sized(config, batch_size):
    return Modist.sized(config, batch_size, "modist")

  def sampler(self, split, source=None):
    """MoDist's; without motion if MoDist is left out."""
    if "modist" in self.parts:
      return self.parts["modist"].sampler(split, source)
    pace = dict(motion_interval=1, synchronised=self.config.data.synchronised)
    return Distill(motion_frames=0, **pace, **self._clip)

  def prepared_motion(self):
    part = self.parts.get("modist")
    return part and part.prepared_motion()

  def init(self, key):
    """MoDist's encoder is the shared one, so that its momentum copy starts equal."""
    params, aux = {}, {}
    for name, part in self.parts.items():
      own, aux[name] = part.init(part_key(key, name))
      encoder, params[name] = split_encoder(own, name)
      if name == "modist" or "encoder" not in params:
        params["encoder"] = encoder
    return params, aux

  def network(self, params, aux, *, train=False):
    """With BatchNorm statistics of clips as plain as there are: those of the last part.

    MoSI's heads are none of its `heads`: they know features with MoSI's statistics.
    """
    *_, name = self.parts
    return self.parts[name].network(part_params(params, name), aux[name])

  def with_encoder(self, params, aux, encoder):
    raise UserError("method.name='joint' cannot start from the weights of another run")

  def aux_shardings(self, mesh: Mesh):
    return {name: part.aux_shardings(mesh) for name, part in self.parts.items()}

  def check_training(self, mesh: Mesh) -> None:
    for part in self.parts.values():
      part.check_training(mesh)
    self._check_every(mesh.size, "the number of devices")

  def pretext(self, batch, key, step):
    """The pretext of each part, by name."""
    rows = self.rows(batch, key)
    return {
      name: part.pretext(rows[name], part_key(key, name), step)
      for name, part in self.parts.items()
    }

  def loss(self, params, aux, batch, key, step):
    rows, total, aux, outputs = self.rows(batch, key), 0.0, dict(aux), {}
    for name, part in self.parts.items():
      own = part_params(params, name), aux[name], rows[name], part_key(key, name)
      with jax.named_scope(name):
        loss, (aux[name], outputs[name]) = part.loss(*own, step)
      total += self._weights[name] * loss
    return total, (aux, outputs)

  def measured(self, outputs):
    return self.metrics.single_from_model_output(**outputs)  # each part has its mask

  def after_update(self, params, aux, step):
    return {
      name: part.after_update(part_params(params, name), aux[name], step)
      for name, part in self.parts.items()
    }

  def predict(self, params, aux, batch):
    """What each part predicts."""
    rows = self.rows(batch)
    return {
      name: part.predict(part_params(params, name), aux[name], rows[name])
      for name, part in self.parts.items()
    }

  def save_figures(self, directory, batch, key):
    """Lets each part draw into a folder of its name."""
    for name, rows in self.rows(batch, key, sources=1).items():
      self.parts[name].save_figures(directory / name, rows, part_key(key, name))

  def save_results(self, directory, params, aux, batch):
    """Lets each part draw into a folder of its name."""
    few = {name: jnp.asarray(array[:4]) for name, array in batch.items()}
    for name, rows in self.rows(few).items():
      own = part_params(params, name), aux[name], rows
      self.parts[name].save_results(directory / name, *own)

  def rows(self, batch, key=None, sources=None):
    """The batch of each part, MoSI's with so many rows at most.

    `key` is of a training step; None in evaluation, where what a row gives depends on
    its index alone, and every row is one of MoSI's.
    """
    query = {name: batch[name] for name in ("valid", "index")}
    query |= {name: batch[name][:, 0] for name in ("video", "extent")}
    rows = {"modist": batch, "mas": query}
    if "mosi" in self.parts:
      rows["mosi"] = self._stills(query, key, sources)
    return {name: rows[name] for name in self.parts}

  def _stills(self, query, key, count):
    """MoSI's batch: squares of frames of the RGB query clips."""
    method, canvas = self.settings, self.config.data.canvas
    every = 1 if key is None else method.mosi_every  # of split rows, every device's own
    some = jax.tree.map(lambda x: x.reshape(-1, every, *x.shape[1:])[:, 0], query)
    draw = partial(draw_squares, frames=method.frames, largest=max(canvas))
    if key is None:
      draws = draw_by_row(draw, jax.random.key(0), some["index"], some["extent"])
    else:
      draws = draw(jax.random.fold_in(key, _SOURCES), some["extent"])
    some, draws = jax.tree.map(lambda x: x[:count], (some, draws))
    video, extent = some.pop("video"), some["extent"]
    with jax.named_scope("sources"):
      image = cut_squares(video, extent, *draws, side=method.mosi_side)
    return some | {"image": image, "extent": jnp.full_like(extent, method.mosi_side)}

  def _part(self, name):
    shared = {key: self.settings[key] for key in _SHARED}
    settings = ConfigDict({**self.config[name], **shared})
    options = dict(side=self.settings.mosi_side) if name == "mosi" else {}
    try:
      return PARTS[name](self.config, settings, **options)
    except UserError as error:
      raise UserError(f"{name} ('method' is its section '{name}'): {error}") from error

  def _check_every(self, parts, why):
    """Raises UserError unless each part of the rows of a step has as many sources."""
    train, every = self.config.train, self.settings.mosi_every
    rows = train.batch_size // train.accumulate_steps
    if "mosi" in self._weights and rows % (every * parts):
      raise UserError(
        f"train.batch_size / train.accumulate_steps={rows} must be a multiple of "
        f"method.mosi_every={every}" + (f" x {parts}, {why}" if parts > 1 else "")
      )


def split_encoder(params, name):
  """The encoder's parameters of a part, and its others."""
  if name == "modist":
    encoder, visual = split_encoder(params["visual"], "visual")
    return encoder, {**params, "visual": visual}
  rest = {key: tree for key, tree in params.raw_mapping.items() if key != "encoder"}
  return params["encoder"], nnx.State(rest)


def part_params(params, name):
  """The parameters that a part knows: its own and the encoder's."""

  def joined(own):
    encoder = params["encoder"].raw_mapping
    return nnx.State({"encoder": encoder, **own.raw_mapping})

  own = params[name]
  if name == "modist":
    return {**own, "visual": joined(own["visual"])}
  return joined(own)


def part_key(key, name):
  """The same whether other parts are left out or not."""
  return jax.random.fold_in(key, [*PARTS].index(name))


def _metrics(parts, weights) -> type[metrics.Collection]:
  """Those of the parts as <part>_<name>, and `loss`, their weighted sum."""
  fields = {
    f"{name}_{field}": metric.from_fun(partial(_outputs_of, name))
    for name, part in parts.items()
    for field, metric in part.metrics.__annotations__.items()
  }
  collection = metrics.Collection.create(**fields)

  def compute(self):
    found = metrics.Collection.compute(self)
    total = sum(weight * found[f"{name}_loss"] for name, weight in weights.items())
    return {"loss": total, **found}

  collection.compute = compute
  return collection


def _outputs_of(name, **outputs):
  return outputs[name]
