"""Action detection in boxes on a video network, as SlowFast does it on AVA."""

import contextlib

import jax
import jax.numpy as jnp
from flax import nnx

from motion_jax.models import common, heads, resnet3d
from motion_jax.ops.roi_align import roi_align

STRIDE = 32  # sides of the video are multiples of it


class Detector(nnx.Module):
  """Scores the actions of the person in each box on the middle frame of a clip.

  The last stage keeps the resolution of the one before, with dilation 2 (Gu et al.,
  CVPR 2018, as in SlowFast); features are averaged over time, read in each box by
  RoIAlign with 7x7 bins, and their maximum goes into a linear classifier.

  Args:
    encoder: a 3D ResNet; it stays what it is outside this module.
    actions: number of logits.
    dropout: before the classifier.
    rngs: the `params` stream draws the classifier.

  Raises:
    ValueError: if the encoder is no 3D ResNet.
  """

  def __init__(self, encoder, actions: int, *, dropout: float, rngs: nnx.Rngs):
    if not isinstance(encoder, resnet3d.Encoder):
      raise ValueError(
        f"detection needs a 3D ResNet ({', '.join(resnet3d.VARIANTS)}), found "
        f"{type(encoder).__name__}"
      )
    self.encoder = encoder
    self.head = heads.Classifier(encoder.features, actions, dropout=dropout, rngs=rngs)

  def __call__(self, video, boxes, rngs: nnx.Rngs | None = None) -> jax.Array:
    """Computes logits.

    Args:
      video: [B, T, H, W, C] normalised; H and W are multiples of 32.
      boxes: [B, N, 4] float, (x1, y1, x2, y2) in pixels.
      rngs: `nnx.Rngs(dropout=key)` in training mode.

    Returns:
      [B, N, actions] float32.

    Raises:
      ValueError: if the sides of the video are no multiples of 32.
    """
    height, width = video.shape[2:4]
    if height % STRIDE or width % STRIDE:
      raise ValueError(
        f"the video is {height}x{width}; sides must be multiples of {STRIDE}"
      )
    features = dilated_stage(self.encoder, self.encoder.until(video, "conv4"))
    features = features.astype(jnp.float32).mean(1)
    with jax.named_scope("boxes"):
      pooled = roi_align(features, boxes, scale=features.shape[2] / width)
      return self.head(pooled.max((2, 3)), rngs=rngs)


def dilated_stage(encoder: resnet3d.Encoder, x: jax.Array) -> jax.Array:
  """Applies the last stage without its spatial stride and with dilation 2.

  Every second row and column makes a map of its own, on which the dilated convolution
  is a plain one; the four maps are put together again.

  Args:
    encoder: whose last stage is used.
    x: [B, T, H, W, C] from the stage before; H and W are even.

  Returns:
    [B, T', H, W, D].
  """
  batch, time, height, width, channels = x.shape
  x = x.reshape(batch, time, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 3, 5, 1, 2, 4, 6)
  x = x.reshape(batch * 4, time, height // 2, width // 2, channels)
  plain = type(encoder.stages[-1][0]).__call__
  call = common.rematerialised if encoder.remat else plain
  with jax.named_scope("conv5"):
    for block in encoder.stages[-1]:
      with _without_spatial_stride(block):
        x = call(block, x)
  x = x.reshape(batch, 2, 2, *x.shape[1:]).transpose(0, 3, 4, 1, 5, 2, 6)
  return x.reshape(batch, x.shape[1], height, width, x.shape[-1])


@contextlib.contextmanager
def _without_spatial_stride(block):
  """Sets the spatial strides of a block to one for a while."""
  paths = [block.path, *([] if block.shortcut is None else [block.shortcut])]
  convs = [convolution for path in paths for convolution in path.convs]
  before = [convolution.strides for convolution in convs]
  try:
    for convolution in convs:
      convolution.strides = (convolution.strides[0], 1, 1)
    yield
  finally:
    for convolution, strides in zip(convs, before, strict=True):
      convolution.strides = strides
