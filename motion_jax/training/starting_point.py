"""Encoders to start from: a run, one of its checkpoints, or a PyTorch file."""

import logging
import os
import pathlib

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.config import UserError, local_path
from motion_jax.models import convert, resnet3d
from motion_jax.scale import hosts
from motion_jax.training import runs
from motion_jax.training.checkpoint import ENCODER_ONLY
from motion_jax.training.trained_encoder import load_encoder

logger = logging.getLogger("motion_jax")

SCRATCH = "scratch"

# Of the programs that trained the networks, by layout; of others it is the config's.
NORMALISATION = {
  "torchvision": {  # of its video networks
    "mean": (0.43216, 0.394666, 0.37645),
    "std": (0.22803, 0.22145, 0.216989),
  },
  "dpc": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
}

# What stands on the encoder in checkpoints: classifiers of MoSI, SlowFast and
# torchvision; DPC's aggregation and prediction, and the classifier of its evaluation.
_ON_TOP = ("head.", "fc.", "agg.", "network_pred.")
_ON_TOP += ("convrnn.", "final_bn.", "final_fc.")
_DPC_EPS = 1e-5


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
  check(config.init_from)
  if config.init_from == SCRATCH:
    logger.info("encoder: randomly initialised")
    return params, aux
  encoder = load_encoder_of(config, method.encoder(params, aux))
  return method.with_encoder(params, aux, encoder)


def check(init_from: str) -> None:
  """Raises UserError if `config.init_from` is empty, or nothing is there."""
  if not init_from:
    raise UserError(
      "config.init_from is empty: give the folder of a run, a checkpoint or a PyTorch "
      "file, or 'scratch' for random initialisation"
    )
  if init_from != SCRATCH and not hosts.is_file(local_path(init_from)):
    runs.locate(init_from)


def load_encoder_of(config: ConfigDict, target: nnx.Module) -> nnx.Module:
  """Reads the encoder that `config.init_from` names; its structure is `target`'s."""
  path = local_path(config.init_from)
  if hosts.is_file(path):
    module, report = load_torch_encoder(path, target)
    _warn_of_normalisation(config.method, NORMALISATION.get(report.layout, {}))
    return module
  trained = load_encoder(path)
  stored, wanted = trained.config.model, config.model
  if (stored.name, stored.width) != (wanted.name, wanted.width):
    raise UserError(
      f"{path} holds {stored.name} of width {stored.width}, the config asks for "
      f"{wanted.name} of width {wanted.width}; put network={stored.name} into the "
      "config's argument, as in --config=configs/finetune.py:synthetic_actions,network="
      f"{stored.name}, which sets the sizes of its clips too, and, if the width still "
      f"differs, add --config.model.width={stored.width}"
    )
  _check_shapes(path, trained.module, target)
  _warn_of_seen_videos(config, trained.config)
  _warn_of_normalisation(config.method, trained.config.method)
  origin = f"step {trained.step} of {trained.config.name}"
  if trained.config.get(ENCODER_ONLY):
    origin = "converted from PyTorch weights"
  logger.info("encoder: from %s, %s; the head is new", path, origin)
  return trained.module


def load_torch_encoder(
  path: pathlib.Path, target: nnx.Module
) -> tuple[nnx.Module, convert.Report]:
  """Reads a PyTorch file into a copy of `target`, in the layout that fits best.

  Returns:
    (the encoder, what was read).

  Raises:
    UserError: if it cannot be read, or is not of this network; the message says why.
  """
  best, report, reasons = None, None, []
  state = read_torch(path)
  for layout in convert.LAYOUTS:
    try:
      module, found = convert.import_weights(target, state, layout)
    except convert.OtherLayout:
      continue
    except ValueError as error:
      reasons.append(f"as {layout!r}: {error}")
      continue
    if report is None or len(found.loaded) > len(report.loaded):
      best, report = module, found
  if best is None:
    raise UserError(
      f"{path}: its arrays ({', '.join([*state][:3])}, ...) fit the network in none of "
      f"the layouts {', '.join(convert.LAYOUTS)}; is model.name the right network, "
      "model.width 64?" + "".join(f"\n  {reason}" for reason in reasons)
    )
  _check_complete(path, report)
  logger.info("encoder: from %s, names of %s; %s", path, report.layout, report)
  _warn_of_others(path, target, report)
  return best, report


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the arrays of a PyTorch file by name; raises UserError if it cannot."""
  try:
    return convert.load_torch(path)
  except (OSError, ValueError) as error:
    raise UserError(f"cannot read PyTorch weights: {error}") from error


def _check_complete(path, report):
  statistics = [name for name in report.missing if "running_" in name]
  if len(statistics) < len(report.missing):
    raise UserError(
      f"{path}: incomplete for this network; {report}; is it of another one "
      f"(--config.model.name={'|'.join(resnet3d.VARIANTS)})? If not, give the whole "
      "file as its training program wrote it"
    )
  if statistics:  # DPC keeps none
    logger.warning(
      "%s has no running statistics of its batch norms: fine-tune all of the network; "
      "as it is, or with frozen stages, its features mean nothing",
      path,
    )


def _warn_of_others(path, target, report):
  """Tells of arrays that no known head explains, and of DPC's batch norm."""
  others = [name for name in report.unexpected if not name.startswith(_ON_TOP)]
  if others:
    logger.warning(
      "%s: %d arrays have no place in the network and are left out: %s",
      path,
      len(others),
      convert.few(others),
    )
  eps = next(target.paths()).norms[0].eps
  if report.layout == "dpc" and eps != _DPC_EPS:
    logger.warning(
      "%s: its names are DPC's, whose batch norm has epsilon %g, this network's %g: "
      "take --config.model.name=r2d3d_18_dpc",
      path,
      _DPC_EPS,
      eps,
    )


def _check_shapes(path, source, target):
  shapes = [
    jax.tree.map(np.shape, nnx.to_pure_dict(nnx.state(m))) for m in (source, target)
  ]
  if shapes[0] != shapes[1]:
    raise UserError(f"the arrays of {path} do not have the shapes of this network")


def _warn_of_normalisation(method, trained):
  """Tells when pixels are normalised in another way than the encoder has learned."""
  keys = [
    key
    for key in ("mean", "std")
    if key in method and key in trained and [*method[key]] != [*trained[key]]
  ]
  if keys:
    logger.warning(
      "the encoder knows pixels that are normalised in another way; this takes it: %s",
      " ".join(f"--config.method.{key}='{tuple(trained[key])}'" for key in keys),
    )


def _warn_of_seen_videos(config, before):
  """Tells when videos that will be tested on may have been pretrained on."""
  data, old = config.data, before.data
  keys = ("name", "heldout_fraction", "train_list", "heldout_list")
  differs = any(data[key] != old.get(key) for key in keys)
  if data.name == "folder":
    differs |= data.heldout_by != old.heldout_by
  if _videos(data) == _videos(old) and differs:
    logger.warning(
      "the pretraining split the same data in another way: it may have seen videos "
      "that are tested on now"
    )


def _videos(data):
  """The data set without its split ('ucf101:split2'), or the folder."""
  path = os.path.realpath(local_path(data.path)) if data.path else ""
  return data.name.partition(":")[0], path
