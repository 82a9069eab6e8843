"""MoSI, MoDist and MAS at once, on one network.

Beyond the papers. Every objective is the method of its own file, unchanged; they share
the encoder's weights and the videos of a batch.
"""

import pathlib
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import sharding
from motion_jax.config import UserError, choose
from motion_jax.methods.base import Method
from motion_jax.methods.mas import Mas
from motion_jax.methods.modist import Modist
from motion_jax.methods.mosi import Mosi
from motion_jax.methods.settings import check_settings
from motion_jax.ops import crops
from motion_jax.ops.draws import draw_by_row

PARTS = ("mosi", "modist", "mas")
_SHARED = ("frames", "size", "mean", "std")  # of `method`, alike for all parts
_SOURCES = len(PARTS)  # number of the key that draws MoSI's frames


class Joint(Method):
  """The pretext tasks of a config with `method.name = 'joint'`.

  A part is a method with the config's section of its name as its `method` section and
  a weight `method.<name>_weight`; 0 leaves it out. The parts share the encoder's
  parameters. Heads, BatchNorm statistics, momentum copies and queues are a part's own,
  in `params[name]` and `aux[name]`: pseudo-motion clips, distorted clips and plain
  clips have different statistics.

  Rows are those of the sampler 'distill'. MoDist takes all of a row; MAS the RGB query
  clip; MoSI a random frame of that clip, of every `method.mosi_every`-th row (in
  evaluation of every row), a square of which is resized to `method.mosi_side` pixels.

  Args:
    config: a whole config.
    mesh: whose devices split rows and queues; None for all devices.

  Raises:
    UserError: for settings that cannot work together.
  """

  def __init__(self, config: ConfigDict, mesh: Mesh | None = None):
    check_settings(config)
    method = self._config = config.method
    mesh = sharding.make_mesh() if mesh is None else mesh
    choose("data.sampler", config.data.sampler, ("distill",))
    weights = {name: method[f"{name}_weight"] for name in PARTS}
    if min(weights.values()) < 0 or not any(weights.values()):
      raise UserError(
        f"the weights {weights} must not be negative, and one of them at least must be "
        "above 0: set method.mosi_weight, modist_weight or mas_weight"
      )
    self._weights = {name: weight for name, weight in weights.items() if weight}
    self._canvas = tuple(config.data.canvas)
    if "mosi" in self._weights:
      _check_sources(config)
    self._step = config.train.batch_size // config.train.accumulate_steps
    make = {"mosi": Mosi, "modist": partial(Modist, mesh=mesh), "mas": Mas}
    self._parts = {name: _make(make[name], config, name) for name in self._weights}
    self.metrics = _metrics(self._parts, self._weights)

  @property
  def clips_per_example(self) -> float:
    """The mean over rows: some of them are no source of MoSI."""
    shares = {"mosi": 1 / self._config.mosi_every}
    return sum(
      part.clips_per_example * shares.get(name, 1) for name, part in self._parts.items()
    )

  def init(self, key):
    """MoDist's encoder is the shared one, so that its momentum copy starts equal."""
    params, aux = {}, {}
    for name, part in self._parts.items():
      params[name], aux[name] = part.init(_key(key, name))
    split = {name: _split_encoder(tree, name) for name, tree in params.items()}
    first = "modist" if "modist" in split else next(iter(split))
    rest = {name: rest for name, (_, rest) in split.items()}
    return {"encoder": split[first][0], **rest}, aux

  def aux_shardings(self, mesh: Mesh):
    """Where aux lies on a mesh: as each part says."""
    return {name: part.aux_shardings(mesh) for name, part in self._parts.items()}

  def check_training(self, mesh: Mesh) -> None:
    for part in self._parts.values():
      part.check_training(mesh)
    if "mosi" in self._parts:
      why = "the number of devices"
      _check_every(self._config.mosi_every, self._step, mesh.size, why)

  def loss(self, params, aux, batch, key, step):
    total, aux, outputs = 0.0, dict(aux), {}
    for name, rows in self._rows(key, batch).items():
      with jax.named_scope(name):
        loss, (aux[name], outputs[name]) = self._parts[name].loss(
          _of_part(params, name), aux[name], rows, _key(key, name), step
        )
      total += self._weights[name] * loss
    return total, (aux, outputs)

  def after_update(self, params, aux, step):
    return {
      name: part.after_update(_of_part(params, name), aux[name], step)
      for name, part in self._parts.items()
    }

  def predict(self, params, aux, batch):
    """What each part predicts; a row's draws follow from its index."""
    return {
      name: self._parts[name].predict(_of_part(params, name), aux[name], rows)
      for name, rows in self._heldout_rows(batch).items()
    }

  def pretext(self, batch, key, step):
    """The pretext of each part, by name."""
    return {
      name: self._parts[name].pretext(rows, _key(key, name), step)
      for name, rows in self._rows(key, batch).items()
    }

  def encoder(self, params, aux):
    """The encoder, with BatchNorm statistics of clips as plain as there are.

    MoSI's heads are no `classifiers` of it: they know features with MoSI's statistics.
    """
    name = next(n for n in ("mas", "modist", "mosi") if n in self._parts)
    return self._parts[name].encoder(_of_part(params, name), aux[name])

  def save_figures(self, directory: pathlib.Path, batch, key):
    """Writes the figures of each part into a folder of its name."""
    for name, rows in self._rows(key, batch, sources=1).items():
      self._parts[name].save_figures(directory / name, rows, _key(key, name))

  def save_results(self, directory: pathlib.Path, params, aux, batch):
    """Writes what each part makes of the batch into a folder of its name."""
    for name, rows in self._heldout_rows(_few(batch)).items():
      self._parts[name].save_results(
        directory / name, _of_part(params, name), aux[name], rows
      )

  def _rows(self, key, batch, sources=None):
    """The training batch of each part; of MoSI's only so many sources if given."""
    query, rows = _query(batch), {}
    if "mosi" in self._parts:
      every = self._config.mosi_every
      some = {name: _every(array, every) for name, array in query.items()}
      draws = self._draw_sources(jax.random.fold_in(key, _SOURCES), some["extent"])
      rows["mosi"] = self._sources(*jax.tree.map(lambda x: x[:sources], (some, *draws)))
    rows |= {"modist": batch, "mas": query}
    return {name: rows[name] for name in self._parts}

  def _heldout_rows(self, batch):
    """The batch of each part; what a row gives depends on its index alone."""
    query, rows = _query(batch), {}
    if "mosi" in self._parts:
      key = jax.random.key(0)
      draws = draw_by_row(self._draw_sources, key, query["index"], query["extent"])
      rows["mosi"] = self._sources(query, *draws)
    rows |= {"modist": batch, "mas": query}
    return {name: rows[name] for name in self._parts}

  def _draw_sources(self, key, extent):
    """A frame [B] of every clip, and the place [B, 4] of a square, as large as fits."""
    frame_key, crop_key = jax.random.split(key)
    frame = jax.random.randint(frame_key, (len(extent),), 0, self._config.frames)
    return frame, crops.draw_crops(crop_key, extent, size=max(self._canvas))

  def _sources(self, rows, frame, box):
    """Source images of MoSI: a square of a frame of every clip."""
    with jax.named_scope("sources"):
      video, side = rows["video"], self._config.mosi_side
      image = jnp.take_along_axis(video, frame.reshape(-1, 1, 1, 1, 1), axis=1)
      turned = crops.is_turned(rows["extent"], video.shape[2:4])
      image = crops.resize_crops(image, box, size=side, turned=turned)[:, 0]
    return {
      "image": jnp.round(255 * image).astype(jnp.uint8),
      "extent": jnp.full_like(rows["extent"], side),
      "valid": rows["valid"],
      "index": rows["index"],
    }


def _query(batch):
  """Query clips as a batch of plain clips."""
  return {
    name: batch[name][:, 0] if name in ("video", "extent") else batch[name]
    for name in ("video", "extent", "valid", "index")
  }


def _few(batch):
  return {name: jnp.asarray(array[:4]) for name, array in batch.items()}


def _check_sources(config):
  """Raises UserError if rows cannot be MoSI's sources."""
  method = config.method
  if method.mosi_side <= method.size:
    raise UserError(
      f"method.mosi_side={method.mosi_side} gives crops of method.size={method.size} "
      "pixels no room to move; twice that or more is right, the paper has 320 and 112"
    )
  step = config.train.batch_size // config.train.accumulate_steps
  _check_every(method.mosi_every, step, config.model.bn_groups, "model.bn_groups")


def _check_every(every, step, parts, why):
  """Raises UserError unless each part of the rows of a step has as many sources."""
  if every < 1 or step % (every * parts):
    raise UserError(
      f"train.batch_size / train.accumulate_steps={step} must be a multiple of "
      f"method.mosi_every={every}" + (f" x {parts}, {why}" if parts > 1 else "")
    )


def _make(method, config, name):
  """Builds a part."""
  config = config.copy_and_resolve_references()
  shared, side = {key: config.method[key] for key in _SHARED}, config.method.mosi_side
  config.method = ConfigDict({**config[name], **shared, "name": name})
  if name == "mas":
    config.data.sampler = "clip"
  if name == "mosi":
    config.data.update(short_side=side, canvas=(side, side))
  try:
    return method(config)
  except UserError as error:
    raise UserError(f"{name} ('method' is its section '{name}'): {error}") from error


def _split_encoder(params, name):
  """The encoder's parameters of a part, and its others."""
  if name == "modist":
    encoder, visual = _split_encoder(params["visual"], "visual")
    return encoder, {**params, "visual": visual}
  rest = {key: tree for key, tree in params.raw_mapping.items() if key != "encoder"}
  return params["encoder"], nnx.State(rest)


def _of_part(params, name):
  """The parameters that a part knows: its own and the encoder's."""
  own, encoder = params[name], params["encoder"]
  if name == "modist":
    return {**own, "visual": _with_encoder(own["visual"], encoder)}
  return _with_encoder(own, encoder)


def _with_encoder(own, encoder):
  return nnx.State({"encoder": encoder.raw_mapping, **own.raw_mapping})


def _metrics(parts, weights) -> type[metrics.Collection]:
  """Those of the parts as <part>_<name>, and `loss`, their weighted sum."""
  fields = {
    f"{name}_{field}": metric.from_fun(partial(_outputs_of, name))
    for name, part in parts.items()
    for field, metric in part.metrics.__annotations__.items()
  }

  def compute(self):
    found = metrics.Collection.compute(self)
    total = sum(weight * found[f"{name}_loss"] for name, weight in weights.items())
    return {"loss": total, **found}

  body = {"__annotations__": fields, "compute": compute}
  return flax.struct.dataclass(type("Metrics", (metrics.Collection,), body))


def _outputs_of(name, **outputs):
  return outputs[name]


def _key(key, name):
  """A part's key: the same whether other parts are left out or not."""
  return jax.random.fold_in(key, PARTS.index(name))


def _every(array, step):
  """Rows 0, step, 2 step, ...; of split rows, each device's own."""
  return array.reshape(-1, step, *array.shape[1:])[:, 0]
