"""A trained network as a function from video to features."""

import logging
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.config import local_path
from motion_jax.data import Record
from motion_jax.data.inputs import feature_views
from motion_jax.methods import make_method
from motion_jax.ops import crops
from motion_jax.training import runs
from motion_jax.training.checkpoint import ENCODER_ONLY, Checkpoints

logger = logging.getLogger("motion_jax")


class TrainedEncoder:
  """A trained network as a function from video to features; see `load_encoder`.

  Attributes:
    module: the network in evaluation mode, for normalised video.
    features: size D of the features.
    config: what the run was trained with.
    step: the train step of its checkpoint.
    classifiers: what the run has that turns features [B, D] into logits: a fine-tuned
      network's classifier, MoSI's heads.
  """

  def __init__(
    self,
    module: nnx.Module,
    config: ConfigDict,
    step: int,
    classifiers: Sequence[nnx.Module] = (),
  ):
    self.module, self.config, self.step = module, config, step
    self.classifiers = tuple(classifiers)
    self.features = module.features
    graphdef, self._arrays = nnx.split(module)
    self._apply = jax.jit(lambda arrays, video: nnx.merge(graphdef, arrays)(video))

  def __call__(self, video) -> jax.Array:
    """Encodes clips.

    Args:
      video: [B, T, H, W, 3] RGB, uint8 in [0, 255] or float in [0, 1].

    Returns:
      [B, D] float32.

    Raises:
      ValueError: for another shape or type.
    """
    if video.ndim != 5 or video.shape[-1] != 3:
      raise ValueError(f"video must be [B, T, H, W, 3], found {video.shape}")
    if video.dtype != jnp.uint8 and not jnp.issubdtype(video.dtype, jnp.floating):
      raise ValueError(f"video must be uint8 or float in [0, 1], found {video.dtype}")
    scale = 255.0 if video.dtype == jnp.uint8 else 1.0
    method = self.config.method
    mean, std = jnp.asarray(method.mean), jnp.asarray(method.std)
    return self._apply(self._arrays, (jnp.asarray(video) / scale - mean) / std)

  def read(self, path: str | os.PathLike, *, clips: int = 10) -> jax.Array:
    """Decodes a video file as evaluations do: evenly spaced clips, middle squares.

    Args:
      path: of the file.
      clips: how many; 0 for all that follow one another. Frames that are spread over
        the whole video, as of a classifier of `method.segments`, make one alone.

    Returns:
      [clips, T, S, S, 3] float32 in [0, 1].

    Raises:
      DecodeError: if the file cannot be decoded.
    """
    config, path = self.config.copy_and_resolve_references(), local_path(path)
    config.eval.clips = 1 if config.method.get("segments") else clips
    record = Record(str(path), "video", path)
    found = feature_views(config)(record, np.random.default_rng(0))
    video = found["video"].reshape(-1, *found["video"].shape[-4:])
    extent = jnp.asarray(found["extent"]).reshape(-1, 2)
    boxes = crops.center_square(extent, ratio=config.eval.crop_ratio)
    return crops.resize_crops(video, boxes, size=config.method.size)

  def __repr__(self) -> str:
    data, method = self.config.data, self.config.method
    pace = f"one in {data.interval} " if data.interval > 1 else ""
    pace += f"at {data.fps:g} a second" if data.fps else "of a video's own"
    if method.get("segments"):
      pace = "spread over the whole video"
    share = self.config.eval.crop_ratio
    return (
      f"TrainedEncoder({self.config.model.name}, step {self.step})\n"
      "  takes [B, T, H, W, 3] RGB, uint8 or float in [0, 1]; normalises it itself\n"
      f"  gives [B, {self.features}] float32\n"
      f"  is tested on {method.frames} frames, {pace}, of {method.size}x{method.size} "
      f"pixels:\n    the middle square, {share:g} of a video's short side, resized\n"
      "  read(FILE) makes such clips of a video file"
    )


def load_encoder(
  workdir: str | os.PathLike, step: int | None = None, *, lowering: str = ""
) -> TrainedEncoder:
  """Loads the encoder that a run has trained; needs no config file and no data.

  Args:
    workdir: folder of the run, or one of its checkpoints (`run/checkpoints/120`).
    step: which checkpoint; None for the latest.
    lowering: of the convolutions, 'native' or 'folded'; '' for the run's.

  Raises:
    UserError: if there is no such checkpoint.

  >>> encoder = load_encoder("runs/mosi-folder")
  >>> video = np.zeros((2, 4, 32, 32, 3), np.uint8)
  >>> encoder(video).shape == (2, encoder.features)
  True
  """
  workdir, step = runs.locate(workdir, step)
  checkpoints = Checkpoints(workdir)
  config = ConfigDict(checkpoints.config(step))
  if not (config.get(ENCODER_ONLY) or (workdir / "summary.json").exists()):
    logger.warning(
      "%s is not finished: it trains still, or was stopped; this is step %d, the whole "
      "training is %s",
      *(workdir, step, config.train.duration),
    )
  config.model.lowering = lowering or config.model.lowering
  method = make_method(config)
  weights = jax.jit(method.init)(jax.random.key(0))
  weights = checkpoints.restore_weights(step, *weights)
  checkpoints.close()
  heads = () if config.get(ENCODER_ONLY) else method.classifiers(*weights)
  return TrainedEncoder(method.encoder(*weights), config, step, heads)
