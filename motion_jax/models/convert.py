"""PyTorch weights into our networks and back.

Layouts are the names that published checkpoints use:

  tada            MoSI (TAdaConv): `backbone.conv2.res_1.conv_branch.a.weight`, with the
                  pretext head `head.out_joint`
  tada_finetuned  the same backbone with the classifier `head.out`
  torchvision     `layer1.0.conv1.0.weight` and `fc`
  dpc             DPC's R-2D3D: `layer1.0.conv1.weight`; has no classifier
  slowfast        `s2.pathway0_res0.branch2.a.weight` and `head.projection`
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from motion_jax.models import common, heads, resnet3d
from motion_jax.models.torch_file import load_torch, save_torch

__all__ = ["LAYOUTS", "OtherLayout", "Report", "export_weights", "import_weights"]
__all__ += ["load_torch", "save_torch"]

LAYOUTS = ("tada", "tada_finetuned", "torchvision", "dpc", "slowfast")

_HEADS = {"tada": "head.out_joint", "tada_finetuned": "head.out", "torchvision": "fc"}
_HEADS["slowfast"] = "head.projection"
# Of programs that wrap the network; DPC's classifier calls it `resnet`.
_WRAPPERS = {"dpc": ("backbone.", "resnet."), "slowfast": ("backbone.",)}
_TO_TORCH = {5: (4, 3, 0, 1, 2), 2: (1, 0), 1: (0,)}
_FROM_TORCH = {5: (2, 3, 4, 1, 0), 2: (1, 0), 1: (0,)}

Split = tuple[nnx.GraphDef, nnx.State, nnx.State]


class OtherLayout(ValueError):
  """No name of a checkpoint is one of the layout."""


@dataclasses.dataclass(frozen=True)
class Report:
  """What an import did; all names are the checkpoint's.

  Attributes:
    layout: whose names they are, one of `LAYOUTS`.
    loaded: arrays that were copied.
    missing: arrays of the network that the checkpoint lacks; they kept their values.
    unexpected: arrays of the checkpoint that the network has no place for.
  """

  layout: str
  loaded: tuple[str, ...]
  missing: tuple[str, ...]
  unexpected: tuple[str, ...]

  def __str__(self):
    parts = [f"loaded {len(self.loaded)} arrays"]
    for title in ("missing", "unexpected"):
      names = getattr(self, title)
      if names:
        parts.append(f"{len(names)} {title} ({few(names)})")
    return "; ".join(parts)


def few(names: Sequence[str]) -> str:
  """The first five names, for a message."""
  return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def import_weights(
  target: nnx.Module | Split, state: dict[str, np.ndarray], layout: str
) -> tuple[nnx.Module | Split, Report]:
  """Copies PyTorch weights into an encoder or a classifier.

  Args:
    target: `Encoder` or `Classifier`, or the result of `common.split` of one; it is
      not changed.
    state: arrays by name, e.g. from `load_torch`.
    layout: one of `LAYOUTS`.

  Returns:
    (a copy of target with the weights, report).

  Raises:
    OtherLayout: if no name fits.
    ValueError: if the layout is unknown, a shape differs, or the checkpoint is of a
      deeper network.
  """
  is_module = isinstance(target, nnx.Module)
  module = nnx.merge(*(common.split(target) if is_module else target))
  for prefix in _WRAPPERS.get(layout, ()):
    state = {name.removeprefix(prefix): value for name, value in state.items()}
  loaded, missing = [], []
  for name, variable in _named_variables(module, layout):
    if name not in state:
      missing.append(name)
      continue
    value = np.asarray(state[name], np.float32)
    expected = tuple(variable.shape[axis] for axis in _TO_TORCH[variable.ndim])
    if value.shape != expected:
      raise ValueError(
        f"{name} has shape {value.shape}; the network needs {expected}:"
        " build it with the width and channels of the checkpoint"
      )
    variable.set_value(jnp.asarray(value.transpose(_FROM_TORCH[variable.ndim])))
    loaded.append(name)
  if not loaded:
    raise OtherLayout(
      f"no array fits layout {layout!r}: found {', '.join(list(state)[:3])}, ...;"
      f" expected {', '.join(missing[:3])}, ...; layouts: {', '.join(LAYOUTS)}"
    )
  ignored = {*loaded, *(n for n in state if n.endswith("num_batches_tracked"))}
  unexpected = tuple(name for name in state if name not in ignored)
  report = Report(layout, tuple(loaded), tuple(missing), unexpected)
  _check_depth(module, report.unexpected, layout)
  return (module if is_module else common.split(module)), report


def export_weights(target: nnx.Module | Split, layout: str) -> dict[str, np.ndarray]:
  """Writes an encoder or a classifier as a PyTorch state_dict of arrays.

  Args:
    target: as for `import_weights`.
    layout: one of `LAYOUTS`.

  Returns:
    float32 arrays by name; `save_torch` writes them to a file.

  Raises:
    ValueError: if the layout is unknown or has no names for the network.
  """
  module = target if isinstance(target, nnx.Module) else nnx.merge(*target)
  return {
    name: np.asarray(variable[...], np.float32).transpose(_TO_TORCH[variable.ndim])
    for name, variable in _named_variables(module, layout)
  }


def _named_variables(module, layout) -> Iterator[tuple[str, nnx.Variable]]:
  if layout not in LAYOUTS:
    raise ValueError(f"layout {layout!r} is unknown; use one of {', '.join(LAYOUTS)}")
  if isinstance(module, heads.Classifier):
    if layout not in _HEADS:
      raise ValueError(
        f"layout {layout!r} has no classifier; use one of {', '.join(_HEADS)}"
      )
    yield f"{_HEADS[layout]}.weight", module.kernel
    yield f"{_HEADS[layout]}.bias", module.bias
    return
  for path, names in _named_paths(module, layout):
    if len(names) != len(path.convs):
      raise ValueError(
        f"layout {layout!r} has no names for this network: it names {len(names)}"
        f" convolutions where the network has {len(path.convs)}"
      )
    for convolution, (name, _) in zip(path.convs, names, strict=True):
      yield f"{name}.weight", convolution.kernel
    for norm, (_, name) in zip(path.norms, names, strict=True):
      yield f"{name}.weight", norm.scale
      yield f"{name}.bias", norm.bias
      yield f"{name}.running_mean", norm.mean
      yield f"{name}.running_var", norm.var


def _check_depth(module, unexpected, layout):
  """Refuses a checkpoint that has residual blocks which an encoder lacks."""
  if isinstance(module, resnet3d.Encoder):
    name = _style(layout).block.replace(".", r"\.")
    block = re.compile(re.sub(r"{\w+}", lambda _: r"\d+", name))
    more = [name for name in unexpected if block.match(name)]
    if more:
      raise ValueError(
        f"the network has no place for {', '.join(more[:3])}, ...: the checkpoint is "
        "of a deeper or another one"
      )


def _style(layout):
  styles = {"torchvision": _Torchvision, "dpc": _Dpc, "slowfast": _SlowFast}
  return styles.get(layout, _Tada)


def _named_paths(encoder: resnet3d.Encoder, layout):
  """Every `ConvPath` with the (convolution, norm) names of its steps."""
  if not isinstance(encoder, resnet3d.Encoder):
    raise ValueError(f"layout {layout!r} has no names for networks but 3D ResNets")
  style = _style(layout)
  yield encoder.stem.path, style.stem(len(encoder.stem.path.convs))
  for stage, blocks in enumerate(encoder.stages):
    for index, block in enumerate(blocks):
      prefix = style.block.format(
        stage1=stage + 1, stage2=stage + 2, index0=index, index1=index + 1
      )
      yield block.path, style.path(prefix, len(block.path.convs))
      if block.shortcut is not None:
        conv, norm = style.shortcut
        yield block.shortcut, [(f"{prefix}.{conv}", f"{prefix}.{norm}")]


class _Tada:
  block = "backbone.conv{stage2}.res_{index1}"
  shortcut = ("short_cut", "short_cut_bn")

  @staticmethod
  def stem(count):
    letters = ("a",) if count == 1 else ("a1", "a2")
    return [(f"backbone.conv1.{x}", f"backbone.conv1.{x}_bn") for x in letters]

  @staticmethod
  def path(prefix, count):
    letters = ("a", "b") if count == 2 else ("a1", "a2", "b1", "b2")
    return [
      (f"{prefix}.conv_branch.{x}", f"{prefix}.conv_branch.{x}_bn") for x in letters
    ]


class _Torchvision:
  block = "layer{stage1}.{index0}"
  shortcut = ("downsample.0", "downsample.1")

  @staticmethod
  def stem(count):
    return [(f"stem.{3 * i}", f"stem.{3 * i + 1}") for i in range(count)]

  @staticmethod
  def path(prefix, count):
    names = []
    for conv in ("conv1", "conv2"):
      step = f"{prefix}.{conv}"
      if count == 2:
        names.append((f"{step}.0", f"{step}.1"))
      else:
        names += [(f"{step}.0.0", f"{step}.0.1"), (f"{step}.0.3", f"{step}.1")]
    return names


class _Dpc:
  block = "layer{stage1}.{index0}"
  shortcut = ("downsample.0", "downsample.1")

  @staticmethod
  def stem(count):
    return [("conv1", "bn1")][:count]

  @staticmethod
  def path(prefix, count):
    return [(f"{prefix}.conv{i}", f"{prefix}.bn{i}") for i in (1, 2)][:count]


class _SlowFast:
  block = "s{stage2}.pathway0_res{index0}"
  shortcut = ("branch1", "branch1_bn")

  @staticmethod
  def stem(count):
    return [("s1.pathway0_stem.conv", "s1.pathway0_stem.bn")][:count]

  @staticmethod
  def path(prefix, count):
    return [(f"{prefix}.branch2.{x}", f"{prefix}.branch2.{x}_bn") for x in "abc"][
      :count
    ]
