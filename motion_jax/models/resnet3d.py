"""3D residual networks: one table of variants, one encoder."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from motion_jax.models import blocks, common, conv
from motion_jax.models.stages import STAGES, StagedEncoder

_STEM_POOL = (1, 3, 3), (1, 2, 2), (0, 1, 1)  # window, strides, padding


@dataclasses.dataclass(frozen=True)
class Variant:
  """One row of the table; stages are conv2 to conv5.

  Attributes:
    blocks: residual blocks per stage.
    widths: channels per stage, in units of the first stage's; times four behind
      bottlenecks.
    times: temporal taps per stage.
    strides: (T, H, W) strides of the first block per stage.
    stem: kernel of the first convolution.
    stem_pool: a 1x3x3 max pooling with stride 2 ends the stem.
    factorised: '' for full 3D kernels; 'conv' for (2+1)D with a mid width per pair of
      convolutions, 'block' for one mid width per block.
    bottleneck: blocks of three convolutions, the first of which has the temporal taps.
    width: channels of the first stage in the papers.
    stem_middle: channels between the halves of a factorised stem, at width 64.
    eps: of the batch normalisation.
    init: of the kernels; see `common.draw_kernels`.
  """

  blocks: tuple[int, ...]
  widths: tuple[int, ...] = (1, 2, 4, 8)
  times: tuple[int, ...] = (3, 3, 3, 3)
  strides: tuple[conv.Triple, ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
  stem: conv.Triple = (3, 7, 7)
  stem_pool: bool = False
  factorised: str = ""
  bottleneck: bool = False
  width: int = 64
  stem_middle: int = 0
  eps: float = 1e-5
  init: str = "he"

  @property
  def moves(self) -> tuple[bool, ...]:
    """Whether conv1 to conv5 look at several frames, or skip some."""
    stages = zip(self.times, self.strides, strict=True)
    return self.stem[0] > 1, *(time * steps[0] > 1 for time, steps in stages)


_R2D3D = {
  "widths": (1, 2, 4, 4),
  "times": (1, 1, 3, 3),
  "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
  "stem": (1, 7, 7),
  "stem_pool": True,
}

_R50 = {
  "blocks": (3, 4, 6, 3),
  "strides": ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)),
  "stem_pool": True,
  "bottleneck": True,
}

VARIANTS = {
  # MoSI's networks: eps 1e-3 and PyTorch's default initialisation, as its code has.
  "r2d3d_18": Variant(blocks=(2, 2, 2, 2), eps=1e-3, init="uniform", **_R2D3D),
  "r2plus1d_10": Variant(
    blocks=(1, 1, 1, 1), factorised="conv", stem_middle=83, eps=1e-3, init="uniform"
  ),
  # DPC's: eps 1e-5. Differs from DPC: the last ReLU is kept, as in MoSI's; DPC has it
  # behind the network, in its loss and in its classifier.
  "r2d3d_18_dpc": Variant(blocks=(2, 2, 2, 2), **_R2D3D),
  "r2d3d_34": Variant(blocks=(3, 4, 6, 3), **_R2D3D),
  # As in torchvision.
  "r3d_18": Variant(blocks=(2, 2, 2, 2)),
  "r2plus1d_18": Variant(blocks=(2, 2, 2, 2), factorised="block", stem_middle=45),
  # For clips of some 32 pixels: the small first kernel of ResNets for CIFAR-10.
  "r3d_10": Variant(blocks=(1, 1, 1, 1), stem=(3, 3, 3)),
  # MoDist's (Xiao et al., 2021, Table 1): SlowFast's slow pathway with five frames in
  # the first kernel, and a 2D network of an eighth of its width for motion.
  "r3d_50": Variant(stem=(5, 7, 7), times=(1, 1, 3, 3), **_R50),
  # The slow pathway as SlowFast has it.
  "slow_r50": Variant(stem=(1, 7, 7), times=(1, 1, 3, 3), **_R50),
  "motion_r50": Variant(stem=(1, 7, 7), times=(1, 1, 1, 1), width=8, **_R50),
}


class Encoder(StagedEncoder):
  """A 3D ResNet that maps normalised video to pooled features.

  Args:
    variant: its row of the table.
    rngs: the `params` stream draws the kernels.
    width: channels of the first stage; None for the variant's.
    in_channels: channels of the video.
    remat: recompute the activations of a block in the backward pass.
    bn_groups: parts of the batch with their own BatchNorm statistics.
    **options: dtype, lowering and precision of `common.Settings`.
  """

  def __init__(
    self, variant: Variant, *, rngs, width, in_channels, remat, bn_groups, **options
  ):
    settings = common.Settings(eps=variant.eps, groups=bn_groups, **options)
    width = variant.width if width is None else width
    self.stem = Stem(variant, in_channels, width, settings=settings)
    if variant.bottleneck:
      make, expansion = blocks.Bottleneck, blocks.Bottleneck.expansion
    else:
      make = functools.partial(blocks.BasicBlock, factorised=variant.factorised)
      expansion = 1
    stages, inputs = [], width
    for depth, factor, time, strides in zip(
      variant.blocks, variant.widths, variant.times, variant.strides, strict=True
    ):
      outputs, stage = width * factor * expansion, []
      for index in range(depth):
        steps = strides if index == 0 else (1, 1, 1)
        stage.append(make(inputs, outputs, time, steps, settings=settings))
        inputs = outputs
      stages.append(nnx.List(stage))
    self.stages = nnx.List(stages)
    self.features = inputs
    self.variant, self.lowering, self.remat = variant, settings.lowering, remat
    convs = [convolution for path in self.paths() for convolution in path.convs]
    common.draw_kernels(convs, rngs.params(), variant.init)

  def paths(self) -> Iterator[common.ConvPath]:
    """All convolutions and their norms, in the order of the forward pass."""
    yield self.stem.path
    for stage in self.stages:
      for block in stage:
        yield block.path
        if block.shortcut is not None:
          yield block.shortcut

  def stage_paths(self) -> list[tuple[str | int, ...]]:
    """Prefixes of the paths of conv1 to conv5 in `nnx.state(encoder)`, in order."""
    return [("stem",), *(("stages", index) for index in range(len(self.stages)))]

  def _step(self, name, x):
    with jax.named_scope(name):
      if name == "pooled":
        return x.astype(jnp.float32).mean((1, 2, 3))
      index = STAGES.index(name)
      stage = self.stages[index - 1] if index else [self.stem]
      batch, frames = x.shape[0], 1
      if self._folds(index):
        frames = x.shape[1]
        x = x.reshape(batch * frames, 1, *x.shape[2:])
      for module in stage:
        call = common.rematerialised if self.remat else type(module).__call__
        x = call(module, x, frames)
      if frames == 1:
        return x
      if any(self.variant.moves[index + 1 : index + 2]):
        # Or XLA moves the next stage's layout before the end of this one.
        x = jax.lax.optimization_barrier(x)
      return x.reshape(batch, frames, *x.shape[2:])

  def _folds(self, index):
    """Whether a stage looks at one frame at a time, which are then rows of the batch.

    A TPU keeps rows, or channels, in 128 lanes: 16 times as many rows fill them.
    """
    lowering = conv.resolve_lowering(self.lowering)
    return lowering == "native" and not self.variant.moves[index]


class Stem(nnx.Module):
  """First convolution (or a spatial and a temporal one), then max pooling if any."""

  def __init__(self, variant, inputs, width, *, settings):
    steps = [(inputs, width, variant.stem, (1, 2, 2))]
    if variant.factorised:
      middle = variant.stem_middle * width // 64
      steps = blocks.factorise(*steps[0], middle)
    pool = _STEM_POOL if variant.stem_pool else None
    self.path = common.ConvPath(steps, settings=settings, pool=pool)

  def __call__(self, x, frames=1):
    return nnx.relu(self.path(x, frames))
