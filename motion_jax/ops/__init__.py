"""Operations on the device, in pure jax.numpy.

>>> red = jnp.array([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
>>> print(augment.to_grayscale(red).ravel())
[0.299 0.299 0.299]
"""

from motion_jax.ops import augment, pseudo_motion

__all__ = ["augment", "pseudo_motion"]
