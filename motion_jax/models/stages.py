"""The forward pass of every encoder, by stages at which one can stop and go on."""

import jax
from flax import nnx

STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")
ENDPOINTS = (*STAGES, "pooled")


class StagedEncoder(nnx.Module):
  """An encoder whose `_step(name, x)` computes one endpoint from the one before."""

  features: int  # size of the pooled features

  def __call__(self, video: jax.Array) -> jax.Array:
    """Maps [B, T, H, W, C] normalised video to [B, features] float32."""
    return self.until(video, "pooled")

  def endpoints(self, video: jax.Array) -> dict[str, jax.Array]:
    """All activations: conv1 to conv5 [B, T', H', W', D], pooled [B, D].

    C3D's are those before their pooling.
    """
    result, x = {}, video
    for name in ENDPOINTS:
      x = result[name] = self._step(name, x)
    return result

  def until(self, video: jax.Array, name: str) -> jax.Array:
    """The activation at endpoint `name`, one of `ENDPOINTS`, else ValueError."""
    return self._through(ENDPOINTS[: _position(name) + 1], video)

  def after(self, activation: jax.Array, name: str) -> jax.Array:
    """Features [B, D] from the activation at endpoint `name`.

    `after(until(video, name), name)` equals a plain call; gradients with respect to
    the activation are what Grad-CAM needs.
    """
    return self._through(ENDPOINTS[_position(name) + 1 :], activation)

  def _through(self, names, x):
    for name in names:
      x = self._step(name, x)
    return x


def _position(name):
  if name not in ENDPOINTS:
    raise ValueError(f"endpoint {name!r} is unknown; use one of {', '.join(ENDPOINTS)}")
  return ENDPOINTS.index(name)
