"""Evaluators of features: what an encoder is worth as it is, without fine-tuning."""

import contextlib
import json
import logging
import pathlib
from collections.abc import Mapping

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.data.inputs import feature_views
from motion_jax.data.sources import Source
from motion_jax.evaluation.features import FeatureExtractor, Features
from motion_jax.evaluation.parts import UNFINISHED, Parts
from motion_jax.scale import hosts

logger = logging.getLogger("motion_jax")


class FrozenEncoder:
  """Measures the features of a method's encoder; a protocol writes `scores`.

  The same network at random initialisation stands beside it: only the difference was
  learned. It is measured once, and kept in the file `random_init`.

  Args:
    method: with `init` and `encoder`.
    config: a whole config; `data`, `method` (size, mean, std) and `eval` are read.
    sources: the videos, by what they are called.
    mesh: from `sharding.make_mesh`.
    workdir: for `random_init`, and for parts of a pass that is interrupted.
    like: one of the same method and mesh, which lends its compiled network.
  """

  random_init = "random_init.json"  # of each protocol that one run can have

  def __init__(
    self,
    method,
    config: ConfigDict,
    sources: Mapping[str, Source],
    mesh: Mesh,
    workdir: pathlib.Path,
    *,
    like: "FrozenEncoder | None" = None,
  ):
    self._method, self._config, self._sources = method, config, sources
    self._workdir = workdir
    self._random_values: dict[str, float] = {}
    self._told: set[str] = set()  # of damaged videos
    self._views = feature_views(config)
    if like is not None:
      self._random, self._extract = like._random, like._extract
      return
    self._random = method.encoder(*jax.jit(method.init)(jax.random.key(config.seed)))
    rows = config.eval.batch_size
    self._extract = FeatureExtractor(self._random, config, mesh, rows)

  def scores(self, *found: Features) -> dict[str, float]:
    """Returns {name: value} of the features of each source."""
    raise NotImplementedError

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/<score>': value}, and 'eval/random_init/<score>' beside."""
    encoders = [self._method.encoder(params, aux)]
    self._random_values = self._random_values or self._measured_before()
    if not self._random_values:
      encoders.append(self._random)
    found = [self._features(name, encoders) for name in self._sources]
    values, *others = (self.scores(*each) for each in zip(*found, strict=True))
    for other in others:
      self._random_values = {f"eval/random_init/{k}": v for k, v in other.items()}
      about = {"of": self._of_random(), "values": self._random_values}
      self._workdir.mkdir(parents=True, exist_ok=True)
      logs.write_json(self._workdir / self.random_init, about)
    return {f"eval/{k}": v for k, v in values.items()} | self._random_values

  def _measured_before(self) -> dict[str, float]:
    """What an earlier start found of random initialisation; {} if there was none."""
    values, path, wanted = {}, self._workdir / self.random_init, self._of_random()
    if jax.process_index() == 0 and path.exists():
      with contextlib.suppress(ValueError, KeyError):
        about = json.loads(path.read_text())
        values = about["values"] if about["of"] == wanted else {}
    return hosts.from_process_zero(values)

  def _of_random(self) -> list[str]:
    """Names what determines the scores of random initialisation."""
    names = (self._parts(name, [self._random]).folder.name for name in self._sources)
    return [type(self).__name__, *names]

  def _parts(self, name, encoders) -> Parts:
    weights = [*map(nnx.state, encoders)]
    about = ("features", self._config, weights, self._sources[name])
    return Parts(self._workdir / UNFINISHED, *about)

  def _features(self, name, encoders):
    source, parts = self._sources[name], self._parts(name, encoders)
    options = dict(threads=self._config.data.threads, parts=parts)
    text = f"features of {name} videos"
    found = self._extract(encoders, source, self._views, text=text, **options)
    lost = sorted({*range(len(source))} - {*found[0].positions.tolist()})
    if lost and name not in self._told:
      self._told.add(name)
      logger.warning(
        "%d of %d %s videos do not count: damaged: %s",
        *(len(lost), len(source), name, ", ".join(map(source.id_of, lost[:5]))),
      )
    return found
