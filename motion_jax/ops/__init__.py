"""Operations on the device, in pure jax.numpy."""

from motion_jax.ops import augment, pseudo_motion

__all__ = ["augment", "pseudo_motion"]
