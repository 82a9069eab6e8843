"""Self-supervised learning of video representations: MoSI, MoDist and MAS in JAX.

  encoder = motion_jax.load_encoder('runs/mosi-folder')
  model = motion_jax.build_model('r2plus1d_10', rngs=nnx.Rngs(0))
  source = motion_jax.data.open_source('~/videos')
  clips, labels = motion_jax.ops.pseudo_motion.generate(key, images, speeds=2)

Names are imported when they are first used.
"""

import importlib

_HOMES = {
  "build_model": "motion_jax.models",
  "load_encoder": "motion_jax.training.trained_encoder",
  "data": None,
  "models": None,
  "ops": None,
}

__all__ = ["build_model", "data", "load_encoder", "models", "ops"]


def __getattr__(name):
  if name not in _HOMES:
    raise AttributeError(f"module 'motion_jax' has no attribute {name!r}")
  home = _HOMES[name]
  module = importlib.import_module(home or f"motion_jax.{name}")
  return getattr(module, name) if home else module
