"""Residual blocks of 3D networks."""

from flax import nnx

from motion_jax.models import common, conv


class BasicBlock(nnx.Module):
  """Two 3x3 convolutions (each split in two if factorised) beside a shortcut.

  The shortcut is the identity, or a 1x1x1 convolution where the shape changes.
  """

  def __init__(self, inputs, outputs, time, strides, *, factorised, settings):
    kernel = (time, 3, 3)
    steps = [(inputs, outputs, kernel, strides), (outputs, outputs, kernel, (1, 1, 1))]
    if factorised:
      middles = [middle_width(*step[:3]) for step in steps]
      if factorised == "block":
        middles = [middles[0]] * 2
      steps = [
        part
        for step, middle in zip(steps, middles, strict=True)
        for part in factorise(*step, middle)
      ]
    self.path = common.ConvPath(steps, settings=settings)
    self.shortcut = _shortcut(inputs, outputs, strides, settings)

  def __call__(self, x, frames=1):
    shortcut = x if self.shortcut is None else self.shortcut(x, frames)
    return nnx.relu(self.path(x, frames) + shortcut)


class Bottleneck(nnx.Module):
  """Convolutions of 1x1 (with `time` taps), 3x3 and 1x1 pixels beside a shortcut.

  The spatial stride is in the 3x3 convolution. The last normalisation starts with
  scale zero, so that the block starts as its shortcut (as in SlowFast).
  """

  expansion = 4

  def __init__(self, inputs, outputs, time, strides, *, settings):
    middle = outputs // self.expansion
    steps = [
      (inputs, middle, (time, 1, 1), (strides[0], 1, 1)),
      (middle, middle, (1, 3, 3), (1, *strides[1:])),
      (middle, outputs, (1, 1, 1), (1, 1, 1)),
    ]
    self.path = common.ConvPath(steps, settings=settings)
    self.path.norms[-1].scale[...] *= 0
    self.shortcut = _shortcut(inputs, outputs, strides, settings)

  def __call__(self, x, frames=1):
    shortcut = x if self.shortcut is None else self.shortcut(x, frames)
    return nnx.relu(self.path(x, frames) + shortcut)


def middle_width(inputs: int, outputs: int, kernel: conv.Triple) -> int:
  """Channels between the two halves of a (2+1)D kernel: as many weights as in 3D."""
  time, area = kernel[0], kernel[1] * kernel[2]
  return time * area * inputs * outputs // (area * inputs + time * outputs)


def factorise(inputs, outputs, kernel, strides, middle):
  """Splits one 3D step into a spatial and a temporal one with `middle` channels."""
  spatial = (inputs, middle, (1, *kernel[1:]), (1, *strides[1:]))
  temporal = (middle, outputs, (kernel[0], 1, 1), (strides[0], 1, 1))
  return [spatial, temporal]


def _shortcut(inputs, outputs, strides, settings):
  if strides == (1, 1, 1) and inputs == outputs:
    return None
  return common.ConvPath([(inputs, outputs, (1, 1, 1), strides)], settings=settings)
