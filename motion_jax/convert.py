"""PyTorch weights into a run, for whatever takes `init_from`.

  python -m motion_jax.convert --weights=FILE.pth --config=configs/mosi.py:hmdb51 \
    --workdir=runs/official

The config says which network they are of and which clips it expects. Known are the
checkpoints of MoSI, DPC, SlowFast and torchvision; see `models.convert`. Heads are left
out, but for MoSI's of its pretext task: such a run is an encoder to start from, to
evaluate and to look at. The other way is `motion_jax.export`.
"""

import pathlib
import sys
from collections.abc import Container

import jax
from absl import flags
from ml_collections import config_flags

from motion_jax import logs
from motion_jax.commands import command
from motion_jax.config import UserError, local_path
from motion_jax.methods import make_method
from motion_jax.models.convert import OtherLayout, import_weights
from motion_jax.scale import sharding
from motion_jax.training import starting_point, state
from motion_jax.training.checkpoint import ENCODER_ONLY, Checkpoints
from motion_jax.training.trained_encoder import load_encoder


def main() -> None:
  """Converts as the flags say."""
  logs.to_console()
  given = flags.FLAGS
  if not given.weights or not given.workdir or given.config is None:
    raise UserError("give --weights=FILE.pth, --config=... and --workdir=DIR")
  weights = local_path(given.weights)
  if not weights.is_file():
    raise UserError(f"--weights={weights}: there is no such file")
  own = config_flags.get_override_values(given["config"])
  convert(weights, given.config, local_path(given.workdir), own=own)


def convert(
  weights: pathlib.Path,
  config,
  workdir: pathlib.Path,
  *,
  own: Container[str] = (),
) -> None:
  """Writes a network as the checkpoint of step 0 of a run.

  Args:
    weights: PyTorch file.
    config: a whole config of a pretraining.
    workdir: folder of the run; must hold no checkpoint.
    own: keys that the user has set, such as 'method.mean': they stay.

  Raises:
    UserError: if the weights are of another network, or there is a run already.
  """
  config = config.copy_and_resolve_references()
  if "classes" in config.method:
    raise UserError("give the config of a pretraining, e.g. configs/mosi.py:hmdb51")
  checkpoints = Checkpoints(workdir)
  if checkpoints.steps():
    raise UserError(f"{workdir} holds a run already; choose another --workdir")
  method = make_method(config)
  key = jax.random.key(config.seed)
  params, aux = state.initial_weights(method, key, sharding.make_mesh())
  encoder, report = starting_point.load_torch_encoder(
    weights, method.encoder(params, aux)
  )
  params, aux = method.with_encoder(params, aux, encoder)
  heads = _pretext_heads(weights, report.layout, method.classifiers(params, aux))
  if heads:
    params, aux = method.with_classifiers(params, aux, heads)
  _normalise_as(report.layout, config, own)
  stored = config.to_dict() | ({} if heads else {ENCODER_ONLY: True})
  checkpoints.save_weights(params, aux, stored)
  checkpoints.close()
  logs.logger.info("%s: %s", workdir, load_encoder(workdir))


def _pretext_heads(weights, layout, classifiers):
  """The method's heads with the arrays of MoSI's in the file; [] if they do not fit."""
  reason = "the file or the method has none of MoSI's names"
  if layout == "tada" and len(classifiers) == 1:
    try:
      arrays = starting_point.read_torch(weights)
      head, report = import_weights(classifiers[0], arrays, layout)
      if not report.missing:
        logs.logger.info("pretext head: %s", ", ".join(report.loaded))
        return [head]
      reason = str(report)
    except OtherLayout:
      pass
    except ValueError as error:
      reason = str(error)
  logs.logger.info("an encoder alone, without a pretext head: %s", reason)
  return []


def _normalise_as(layout, config, own):
  """Puts the mean and std of the program that trained the network into its run."""
  for name, values in starting_point.NORMALISATION.get(layout, {}).items():
    if f"method.{name}" not in own:
      config.method[name] = values
      logs.logger.info("method.%s=%s, as with %s", name, values, layout)


if __name__ == "__main__":  # flags only here: those of motion_jax.main have these names
  command.define_config_flag()
  flags.DEFINE_string("weights", "", "PyTorch file (.pth, .pt, .pyth, .tar).")
  flags.DEFINE_string("workdir", "", "Folder of the run to be made.")
  sys.exit(command.run(main, sys.argv))
