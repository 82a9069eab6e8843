"""Our networks in PyTorch, to compare speed: video [B, C, T, H, W] -> logits."""

import torch
from torch import nn
from torch.nn import functional

from motion_jax.models import blocks, c3d, resnet3d

ONES = (1, 1, 1)


class Network(nn.Module):
  """An encoder that may compute in bfloat16, and its head in float32.

  Args:
    name: 'c3d' or one of `resnet3d.VARIANTS`.
    width: channels of the first stage.
    classes: number of logits.
    device: 'cpu' or 'cuda'.
    dtype: 'float32', or 'bfloat16' for autocast.
  """

  def __init__(self, name: str, width: int, classes: int, device: str, dtype: str):
    super().__init__()
    make = build_c3d if name == c3d.NAME else build_resnet
    self.encoder, self.head = make(name, width, classes)
    self.device, self.is_half = device, dtype == "bfloat16"

  def forward(self, video):
    with torch.autocast(self.device, torch.bfloat16, enabled=self.is_half):
      features = self.encoder(video)
    return self.head(features.float())


class ConvPath(nn.Sequential):
  """Convolutions with batch norm, ReLU between them."""

  def __init__(self, steps, eps):
    layers = []
    for index, (inputs, outputs, kernel, strides) in enumerate(steps):
      layers += [nn.ReLU(inplace=True)] * (index > 0)
      padding = tuple(size // 2 for size in kernel)
      layers += [
        nn.Conv3d(inputs, outputs, kernel, strides, padding, bias=False),
        nn.BatchNorm3d(outputs, eps=eps),
      ]
    super().__init__(*layers)


class Block(nn.Module):
  """A path beside a shortcut, which is the identity where the shape stays."""

  def __init__(self, steps, inputs, outputs, strides, eps):
    super().__init__()
    self.path = ConvPath(steps, eps)
    changes = strides != ONES or inputs != outputs
    step = (inputs, outputs, ONES, strides)
    self.shortcut = ConvPath([step], eps) if changes else nn.Identity()

  def forward(self, x):
    return functional.relu(self.path(x) + self.shortcut(x), inplace=True)


def build_resnet(name: str, width: int, classes: int) -> tuple[nn.Module, nn.Module]:
  """The encoder of a row of `resnet3d.VARIANTS`, and a linear layer."""
  variant = resnet3d.VARIANTS[name]
  stem = [(3, width, variant.stem, (1, 2, 2))]
  if variant.factorised:
    stem = blocks.factorise(*stem[0], variant.stem_middle * width // 64)
  layers = [ConvPath(stem, variant.eps), nn.ReLU(inplace=True)]
  if variant.stem_pool:
    layers.append(nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))
  inputs = width
  for depth, factor, time, strides in zip(
    variant.blocks, variant.widths, variant.times, variant.strides, strict=True
  ):
    outputs = width * factor * (4 if variant.bottleneck else 1)
    for stride in (strides, *[ONES] * (depth - 1)):
      steps = _block_steps(variant, inputs, outputs, time, stride)
      layers.append(Block(steps, inputs, outputs, stride, variant.eps))
      inputs = outputs
  layers += [nn.AdaptiveAvgPool3d(1), nn.Flatten()]
  return nn.Sequential(*layers), nn.Linear(inputs, classes)


def build_c3d(name: str, width: int, classes: int) -> tuple[nn.Module, nn.Module]:
  """C3D with five convolutions, and three fully connected layers."""
  layers, inputs = [], 3
  for index, factor in enumerate((1, 2, 4, 4, 4)):
    window = (1 if index == 0 else 2, 2, 2)
    layers += [
      nn.Conv3d(inputs, width * factor, 3, padding=1),
      nn.ReLU(inplace=True),
      nn.MaxPool3d(window, window, ceil_mode=True),
    ]
    inputs = width * factor
  layers += [nn.AdaptiveAvgPool3d((1, 4, 4)), nn.Flatten()]
  sizes = [16 * inputs, 32 * width, 32 * width, classes]
  head = []
  for index in range(3):
    head += [nn.ReLU(inplace=True)] * (index > 0)
    head.append(nn.Linear(sizes[index], sizes[index + 1]))
  return nn.Sequential(*layers), nn.Sequential(*head)


def _block_steps(variant, inputs, outputs, time, strides):
  """(inputs, outputs, kernel, strides) of the convolutions of a block."""
  if variant.bottleneck:
    middle = outputs // 4
    return [
      (inputs, middle, (time, 1, 1), (strides[0], 1, 1)),
      (middle, middle, (1, 3, 3), (1, *strides[1:])),
      (middle, outputs, ONES, ONES),
    ]
  kernel = (time, 3, 3)
  steps = [(inputs, outputs, kernel, strides), (outputs, outputs, kernel, ONES)]
  if not variant.factorised:
    return steps
  middles = [blocks.middle_width(*step[:3]) for step in steps]
  if variant.factorised == "block":
    middles = [middles[0]] * 2
  pairs = zip(steps, middles, strict=True)
  return [part for step, middle in pairs for part in blocks.factorise(*step, middle)]
