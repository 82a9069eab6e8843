"""Parts of RAFT (Teed and Deng, ECCV 2020): encoders and the recurrent update.

Attributes have the names of the official program, so that a path in the model is a
name in its weights file. Arrays are [B, H, W, C]; kernels are zero until weights are
loaded.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from motion_jax.models.batch_norm import BatchNorm
from motion_jax.models.precision import FLOAT32


class Conv2d(nnx.Module):
  """2D convolution with bias, padded by half its kernel, in float32."""

  def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride=1):
    self.kernel = nnx.Param(jnp.zeros((*kernel, inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))
    self.stride = stride

  def __call__(self, x: jax.Array) -> jax.Array:
    y = lax.conv_general_dilated(
      x,
      self.kernel[...],
      (self.stride, self.stride),
      [(size // 2, size // 2) for size in self.kernel.shape[:2]],
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision=FLOAT32,
    )
    return y + self.bias[...]


class InstanceNorm(nnx.Module):
  """Zero mean and unit variance per image and channel."""

  def __call__(self, x: jax.Array) -> jax.Array:
    mean = x.mean((1, 2), keepdims=True)
    variance = jnp.square(x - mean).mean((1, 2), keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5)


class Identity(nnx.Module):
  """No normalisation."""

  def __call__(self, x: jax.Array) -> jax.Array:
    return x


def _norm(kind, channels):
  if kind == "batch":
    return BatchNorm(channels, eps=1e-5)
  return InstanceNorm() if kind == "instance" else Identity()


class ResidualBlock(nnx.Module):
  """Two 3x3 convolutions beside a shortcut."""

  def __init__(self, inputs, outputs, stride, norm):
    self.conv1 = Conv2d(inputs, outputs, (3, 3), stride)
    self.conv2 = Conv2d(outputs, outputs, (3, 3))
    self.norm1, self.norm2 = _norm(norm, outputs), _norm(norm, outputs)
    self.downsample = nnx.List([])
    if stride > 1:
      self.norm3 = _norm(norm, outputs)
      self.downsample = nnx.List([Conv2d(inputs, outputs, (1, 1), stride)])

  def __call__(self, x):
    y = nnx.relu(self.norm1(self.conv1(x)))
    y = nnx.relu(self.norm2(self.conv2(y)))
    if self.downsample:
      x = self.norm3(self.downsample[0](x))
    return nnx.relu(x + y)


class BottleneckBlock(nnx.Module):
  """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

  def __init__(self, inputs, outputs, stride, norm):
    middle = outputs // 4
    self.conv1 = Conv2d(inputs, middle, (1, 1))
    self.conv2 = Conv2d(middle, middle, (3, 3), stride)
    self.conv3 = Conv2d(middle, outputs, (1, 1))
    self.norm1, self.norm2 = _norm(norm, middle), _norm(norm, middle)
    self.norm3 = _norm(norm, outputs)
    self.downsample = nnx.List([])
    if stride > 1:
      self.norm4 = _norm(norm, outputs)
      self.downsample = nnx.List([Conv2d(inputs, outputs, (1, 1), stride)])

  def __call__(self, x):
    y = nnx.relu(self.norm1(self.conv1(x)))
    y = nnx.relu(self.norm2(self.conv2(y)))
    y = nnx.relu(self.norm3(self.conv3(y)))
    if self.downsample:
      x = self.norm4(self.downsample[0](x))
    return nnx.relu(x + y)


class Encoder(nnx.Module):
  """Frames [B, H, W, 3] in [-1, 1] to features [B, H/8, W/8, outputs]."""

  def __init__(self, block, widths, outputs, norm):
    first, second, third = widths
    self.conv1 = Conv2d(3, first, (7, 7), 2)
    self.norm1 = _norm(norm, first)
    self.layer1 = nnx.List([block(first, first, s, norm) for s in (1, 1)])
    self.layer2 = nnx.List([block(first, second, 2, norm)])
    self.layer2.append(block(second, second, 1, norm))
    self.layer3 = nnx.List([block(second, third, 2, norm)])
    self.layer3.append(block(third, third, 1, norm))
    self.conv2 = Conv2d(third, outputs, (1, 1))

  def __call__(self, x):
    x = nnx.relu(self.norm1(self.conv1(x)))
    for layer in (self.layer1, self.layer2, self.layer3):
      for block in layer:
        x = block(x)
    return self.conv2(x)


class MotionEncoder(nnx.Module):
  """Joins looked-up correlations and the present flow; the flow is appended.

  Args:
    lookups: channels of the correlations.
    correlation: channels of their convolutions (1x1, then 3x3 if there are two).
    flow: channels of the convolutions of the flow (7x7, 3x3).
    outputs: channels of the result, the flow included.
  """

  def __init__(self, lookups, correlation, flow, outputs):
    self.convc1 = Conv2d(lookups, correlation[0], (1, 1))
    self.two = len(correlation) == 2
    if self.two:
      self.convc2 = Conv2d(*correlation, (3, 3))
    self.convf1 = Conv2d(2, flow[0], (7, 7))
    self.convf2 = Conv2d(*flow, (3, 3))
    self.conv = Conv2d(correlation[-1] + flow[1], outputs - 2, (3, 3))

  def __call__(self, correlation, flow):
    x = nnx.relu(self.convc1(correlation))
    if self.two:
      x = nnx.relu(self.convc2(x))
    y = nnx.relu(self.convf2(nnx.relu(self.convf1(flow))))
    return jnp.concatenate([nnx.relu(self.conv(jnp.concatenate([x, y], -1))), flow], -1)


class Gru(nnx.Module):
  """Convolutional GRU with 3x3 kernels."""

  def __init__(self, hidden, inputs):
    channels = hidden + inputs
    self.convz = Conv2d(channels, hidden, (3, 3))
    self.convr = Conv2d(channels, hidden, (3, 3))
    self.convq = Conv2d(channels, hidden, (3, 3))

  def __call__(self, hidden, x):
    return _gate(hidden, x, self.convz, self.convr, self.convq)


class SeparableGru(nnx.Module):
  """Convolutional GRU with 1x5 kernels, then one with 5x1 kernels."""

  def __init__(self, hidden, inputs):
    channels = hidden + inputs
    self.convz1 = Conv2d(channels, hidden, (1, 5))
    self.convr1 = Conv2d(channels, hidden, (1, 5))
    self.convq1 = Conv2d(channels, hidden, (1, 5))
    self.convz2 = Conv2d(channels, hidden, (5, 1))
    self.convr2 = Conv2d(channels, hidden, (5, 1))
    self.convq2 = Conv2d(channels, hidden, (5, 1))

  def __call__(self, hidden, x):
    hidden = _gate(hidden, x, self.convz1, self.convr1, self.convq1)
    return _gate(hidden, x, self.convz2, self.convr2, self.convq2)


def _gate(hidden, x, convz, convr, convq):
  both = jnp.concatenate([hidden, x], -1)
  update, reset = nnx.sigmoid(convz(both)), nnx.sigmoid(convr(both))
  fresh = jnp.tanh(convq(jnp.concatenate([reset * hidden, x], -1)))
  return (1 - update) * hidden + update * fresh


class TwoConvs(nnx.Module):
  """Convolution, ReLU, convolution."""

  def __init__(self, inputs, middle, outputs, kernel):
    self.conv1 = Conv2d(inputs, middle, (3, 3))
    self.conv2 = Conv2d(middle, outputs, kernel)

  def __call__(self, x):
    return self.conv2(nnx.relu(self.conv1(x)))


class UpdateBlock(nnx.Module):
  """Recurrent update of the hidden state, and what is read from it."""

  def __init__(self, *, encoder, gru, hidden, head, mask):
    self.encoder = encoder
    self.gru = gru
    self.flow_head = TwoConvs(hidden, head, 2, (3, 3))
    self.mask = TwoConvs(hidden, 256, 64 * 9, (1, 1)) if mask else None

  def __call__(self, hidden, context, correlation, flow):
    """New hidden state and the change of the flow."""
    motion = self.encoder(correlation, flow)
    hidden = self.gru(hidden, jnp.concatenate([context, motion], -1))
    return hidden, self.flow_head(hidden)
