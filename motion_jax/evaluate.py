"""Evaluations of a run: its method's metrics on held-out sources."""

import logging
import pathlib

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from motion_jax import logs, sharding, state
from motion_jax.checkpoint import Checkpoints
from motion_jax.config import UserError, difference
from motion_jax.data import pipeline
from motion_jax.data.inputs import configured_sampler, configured_source
from motion_jax.methods import make_method

logger = logging.getLogger("motion_jax")


class HeldOut:
  """Evaluates a method on held-out sources, always the same ones in the same order.

  Args:
    method: see `methods.base.Method`.
    config: a whole config; its sections `data` and `eval` are read.
    mesh: from `sharding.make_mesh`.
    bad_files: text file that gets the names of files that cannot be decoded.
  """

  def __init__(self, method, config: ConfigDict, mesh: Mesh, bad_files: pathlib.Path):
    self._source = configured_source(config.data, "heldout")
    self._sampler = configured_sampler(config.data)
    self._bad_files = pipeline.BadFiles(
      self._source, bad_files, max_fraction=config.data.max_bad_fraction
    )
    self._config = config
    self._mesh = mesh
    self._step = state.make_eval_step(method, mesh)
    self._empty = method.metrics.empty
    sharding.check_batch_size(
      "eval.batch_size", config.eval.batch_size, mesh.size, "the number of devices"
    )

  def __len__(self) -> int:
    limit = max(0, self._config.eval.max_sources) or len(self._source)
    return min(limit, len(self._source))

  def __call__(self, params, aux) -> dict[str, float]:
    """Returns {'eval/<metric>': mean over all valid held-out examples}."""
    collected = self._empty()
    for batch in pipeline.evaluation_batches(
      self._source,
      self._sampler,
      batch_size=self._config.eval.batch_size,
      seed=self._config.seed,
      limit=len(self),
      threads=self._config.data.threads,
    ):
      self._bad_files.update(batch)
      rows = sharding.shard_batch(self._mesh, batch)
      collected = collected.merge(self._step(params, aux, rows))
    values = jax.device_get(collected.compute())
    return {f"eval/{name}": float(value) for name, value in values.items()}


def evaluate(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Evaluates the latest checkpoint of `workdir`; writes evaluation.json there.

  The data and eval sections may differ from those of the training.

  Raises:
    UserError: if there is no checkpoint, or its method or network is another one.
  """
  if not (workdir / "checkpoints").is_dir():
    raise UserError(f"no checkpoint in {workdir}; train first, without config.mode")
  checkpoints = Checkpoints(workdir)
  step = checkpoints.latest_step()
  if step is None:
    raise UserError(f"no complete checkpoint in {workdir}; go on training first")
  stored = checkpoints.config(step)
  for section in ("method", "model"):
    rows = difference(stored[section], config[section].to_dict(), f"{section}.")
    if rows:
      raise UserError(f"{workdir} was trained with another config: {'; '.join(rows)}")
  mesh = sharding.make_mesh()
  method = make_method(config)
  init = jax.jit(method.init, out_shardings=sharding.replicated(mesh))
  params, aux = checkpoints.restore_weights(step, *init(jax.random.key(config.seed)))
  values = HeldOut(method, config, mesh, workdir / "bad_files.txt")(params, aux)
  logs.write_json(workdir / "evaluation.json", {"step": step, **values})
  logger.info("step %d  %s", step, logs.metrics_text(values))
  return values
