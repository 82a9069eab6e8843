"""Networks: encoders, heads, and their PyTorch weights.

>>> print(*NETWORKS)
r2d3d_18 r2plus1d_10 ...
"""

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from motion_jax.config import choose
from motion_jax.models import c3d, conv, heads, resnet3d
from motion_jax.models.precision import PRECISIONS, compute_dtype
from motion_jax.models.stages import StagedEncoder

__all__ = ["NETWORKS", "build_classifier", "build_model", "encoder_of"]

NETWORKS = (*resnet3d.VARIANTS, c3d.NAME)


def encoder_of(model: ConfigDict, rngs: nnx.Rngs, **other) -> StagedEncoder:
  """Builds the encoder that a config's section `model` describes.

  Args:
    model: the section; runs of earlier versions have no `precision`.
    rngs: the `params` stream draws the weights.
    **other: options of `build_model` to be taken instead of the section's.

  Raises:
    ValueError: for an unknown network, dtype or lowering.
    UserError: for an unknown precision.

  >>> section = ConfigDict(COMMON["model"] | {"name": "r3d_10", "width": 8})
  >>> encoder_of(section, nnx.Rngs(0)).features
  64
  """
  precision = model.get("precision", "default")
  choose("model.precision", precision, PRECISIONS)
  options = {key: model[key] for key in ("name", "width", "lowering", "remat")}
  options |= dict(dtype=compute_dtype(model.dtype), precision=precision)
  options |= dict(bn_groups=model.bn_groups, rngs=rngs)
  return build_model(**options | other)


def build_model(
  name: str,
  *,
  rngs: nnx.Rngs,
  width: int | None = None,
  dtype: jnp.dtype = jnp.float32,
  lowering: str = "auto",
  precision: str = "default",
  remat: bool = False,
  bn_groups: int = 1,
  in_channels: int = 3,
) -> StagedEncoder:
  """Builds an encoder by name.

  Args:
    name: one of `NETWORKS`.
    rngs: the `params` stream draws the weights.
    width: channels of the first stage; None for the paper's (8 in 'motion_r50', else
      64), 8 or 16 for small runs.
    dtype: compute dtype; parameters, statistics and pooled features are float32.
    lowering: 'auto', 'native' or 'folded'; see `conv.conv3d`.
    precision: 'default', 'high' or 'highest', of convolutions; see `conv.conv3d`.
    remat: recompute activations in the backward pass: less memory, but everything
      runs forward twice.
    bn_groups: parts of the batch with their own BatchNorm statistics; C3D has no
      normalisation and ignores it.
    in_channels: channels of the video.

  Returns:
    An encoder; `encoder(video)` maps [B, T, H, W, C] to [B, encoder.features].

  Raises:
    ValueError: if the name or the lowering is unknown.

  >>> encoder = build_model("r3d_10", rngs=nnx.Rngs(0), width=8)
  >>> encoder.eval()  # or batch norm takes the statistics of what comes
  >>> video = jnp.zeros((2, 4, 32, 32, 3))  # normalised
  >>> nnx.eval_shape(lambda net: net(video), encoder).shape  # of `encoder(video)`
  (2, 64)
  """
  if name not in (*resnet3d.VARIANTS, c3d.NAME):
    raise ValueError(f"network {name!r} is unknown; use one of {', '.join(NETWORKS)}")
  conv.resolve_lowering(lowering)
  options = dict(
    rngs=rngs,
    width=width,
    dtype=dtype,
    lowering=lowering,
    precision=precision,
    remat=remat,
    in_channels=in_channels,
  )
  if name == c3d.NAME:
    return c3d.Encoder(**options)
  return resnet3d.Encoder(resnet3d.VARIANTS[name], bn_groups=bn_groups, **options)


def build_classifier(
  encoder: StagedEncoder, classes: int, *, dropout: float, rngs: nnx.Rngs
) -> heads.Classifier | c3d.FullyConnected:
  """Builds the classifier that a paper puts on an encoder's features.

  Three fully connected layers for C3D, one linear layer for a ResNet; both map
  (features [B, D], rngs=) to logits [B, classes].

  Raises:
    ValueError: if `dropout` is outside [0, 1).

  >>> encoder = build_model("r3d_10", rngs=nnx.Rngs(0), width=8)
  >>> classifier = build_classifier(encoder, 10, dropout=0.5, rngs=nnx.Rngs(1))
  >>> classifier.eval()
  >>> classifier(jnp.zeros((2, encoder.features))).shape
  (2, 10)
  """
  options = dict(dropout=dropout, rngs=rngs)
  if isinstance(encoder, c3d.Encoder):
    return c3d.FullyConnected(
      encoder.features, classes, hidden=encoder.hidden, **options
    )
  return heads.Classifier(encoder.features, classes, **options)
