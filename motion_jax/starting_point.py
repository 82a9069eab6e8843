"""Encoders to start from: a run, one of its checkpoints, or a PyTorch file."""

import logging
import pathlib

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.checkpoint import load_encoder
from motion_jax.config import UserError
from motion_jax.models import convert

logger = logging.getLogger("motion_jax")

SCRATCH = "scratch"


def load_into(config: ConfigDict, method, params, aux):
  """Puts the encoder that `config.init_from` names into a method's arrays.

  Args:
    config: a whole config.
    method: with `encoder` and `with_encoder`.
    params, aux: from `method.init`.

  Returns:
    (params, aux); unchanged for 'scratch'.

  Raises:
    UserError: if nothing is named, it cannot be read, or its network is another one.
  """
  if not config.init_from:
    raise UserError(
      "config.init_from is empty: give the folder of a run, a checkpoint or a PyTorch "
      "file, or 'scratch' for random initialisation"
    )
  if config.init_from == SCRATCH:
    logger.info("encoder: randomly initialised")
    return params, aux
  encoder = load_encoder_of(config, method.encoder(params, aux))
  return method.with_encoder(params, aux, encoder)


def load_encoder_of(config: ConfigDict, target: nnx.Module) -> nnx.Module:
  """Reads the encoder that `config.init_from` names; its structure is `target`'s."""
  path = pathlib.Path(config.init_from).expanduser()
  if path.is_file():
    return _from_torch(path, target)
  trained = load_encoder(path)
  stored, wanted = trained.config.model, config.model
  if (stored.name, stored.width) != (wanted.name, wanted.width):
    raise UserError(
      f"{path} holds {stored.name} of width {stored.width}, the config asks for "
      f"{wanted.name} of width {wanted.width}; add --config.model.name={stored.name} "
      f"--config.model.width={stored.width}"
    )
  _check_shapes(path, trained.module, target)
  _warn_of_seen_videos(config, trained.config)
  logger.info(
    "encoder: from %s, step %d, trained by %s; its pretext head is left out, the "
    "classifier is new",
    path,
    trained.step,
    trained.config.method.name,
  )
  return trained.module


def _from_torch(path: pathlib.Path, target: nnx.Module) -> nnx.Module:
  try:
    state = convert.load_torch(path)
  except (OSError, ValueError) as error:
    raise UserError(f"--config.init_from: {error}") from error
  best, report = None, None
  for layout in convert.LAYOUTS:
    try:
      module, found = convert.import_weights(target, state, layout)
    except ValueError:
      continue
    if report is None or len(found.loaded) > len(report.loaded):
      best, report = module, found
  if best is None:
    raise UserError(
      f"{path}: its arrays ({', '.join([*state][:3])}, ...) fit the network in none of "
      f"the layouts {', '.join(convert.LAYOUTS)}; is model.name the right network, "
      "model.width 64?"
    )
  if report.missing:
    raise UserError(f"{path}: incomplete for this network; {report}")
  logger.info("encoder: from %s; %s", path, report)
  return best


def _check_shapes(path, source, target):
  shapes = [
    jax.tree.map(np.shape, nnx.to_pure_dict(nnx.state(m))) for m in (source, target)
  ]
  if shapes[0] != shapes[1]:
    raise UserError(f"the arrays of {path} do not have the shapes of this network")


def _warn_of_seen_videos(config, before):
  """Tells when videos that will be tested on may have been pretrained on."""
  data, old = config.data, before.data
  same = (data.name, data.path) == (old.name, old.path)
  keys = ("heldout_fraction", "train_list", "heldout_list")
  if same and any(data[key] != old.get(key) for key in keys):
    logger.warning(
      "the pretraining split the same data in another way: it may have seen videos "
      "that are tested on now"
    )
