"""Networks: encoders, heads, and their PyTorch weights."""

from motion_jax.models.resnet3d import VARIANTS, Encoder, build_model

__all__ = ["VARIANTS", "Encoder", "build_model"]
