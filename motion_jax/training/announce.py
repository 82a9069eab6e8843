"""What a training tells of itself before its first step."""

import logging
import pathlib

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.data.inputs import Sources
from motion_jax.models.common import parameter_count
from motion_jax.models.stages import ENDPOINTS, StagedEncoder

logger = logging.getLogger("motion_jax")

_FEW_STEPS, _FEW_VIDEOS = 100, 20


def announce(
  config: ConfigDict,
  method,
  weights: tuple,
  sources: Sources,
  held_out: int,
  steps: tuple[int, int],
  workdir: pathlib.Path,
) -> None:
  """Logs what is trained, on what, for how long and where.

  Args:
    config: a whole config.
    method: see `methods.base.Method`.
    weights: its (params, aux).
    sources: its data.
    held_out: how many records are evaluated.
    steps: those that are done, and the length of the training.
    workdir: of the run.
  """
  (first, total), batch = steps, config.train.batch_size
  logger.info(
    "data: %s, %d to train on, %d held out",
    *(sources.train.name, len(sources.train), held_out),
  )
  count = parameter_count(weights[0])
  table = "".join(f"\n  {row}" for row in stages(method, *weights))
  logger.info("network: %s, %s parameters%s", config.model.name, f"{count:,}", table)
  clips = batch * method.clips_per_example
  logger.info("batch: %d videos, %d clips; %d steps", batch, clips, total)
  logger.info("workdir: %s", workdir)
  if first:
    logger.info("resumed at step %d", first)
  if config.data.name == "folder" and "video_accuracy" in method.evaluators:
    _warn_of_little(config.data, held_out, total)


def _warn_of_little(data, held_out, total):
  """Warns of a classifier that sees few videos, and is tested on few."""
  if total < _FEW_STEPS:
    logger.warning(
      "%d steps hardly teach a classifier; try --config.train.duration='200 steps', "
      "and another --workdir if this one is a run already",
      total,
    )
  if held_out < _FEW_VIDEOS:
    may = not data.train_list and data.heldout_fraction < 0.3
    more = "; --config.data.heldout_fraction=0.3 takes more" if may else ""
    logger.warning(
      "%d held-out videos say little, each is %.0f %% of the accuracy%s",
      *(held_out, 100 / max(1, held_out), more),
    )


def stages(method, params, aux) -> list[str]:
  """A line per stage of the encoder: its parameters, and its output for one clip.

  `nnx.tabulate` has one per module, in tables wider than a console. What is beside
  stages, heads and other networks, is the last line.
  """
  try:
    encoder = method.encoder(params, aux)
  except NotImplementedError:
    return []  # a method need not have one
  if not isinstance(encoder, StagedEncoder):
    return []
  graphdef, arrays = nnx.split(encoder)
  frames, size = (method.config.method[name] for name in ("frames", "size"))
  clip = jax.ShapeDtypeStruct((1, frames, size, size, 3), jnp.float32)
  shapes = jax.eval_shape(
    lambda a, v: nnx.merge(graphdef, a).endpoints(v), arrays, clip
  )
  leaves = nnx.to_flat_state(nnx.state(encoder, nnx.Param))
  counts = [
    sum(leaf.size for path, leaf in leaves if path[: len(prefix)] == prefix)
    for prefix in encoder.stage_paths()
  ]
  own = parameter_count(params) + parameter_count(aux.get("frozen", {}))
  rows = [
    (name, count, "x".join(map(str, shapes[name].shape[1:])))
    for name, count in zip(ENDPOINTS, [*counts, 0], strict=True)
  ]
  rows.append(("heads, others", own - sum(counts), ""))
  return [f"{name:14s}{count:>12,}  {shape}".rstrip() for name, count, shape in rows]
