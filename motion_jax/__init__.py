"""Self-supervised learning of video representations: MoSI, MoDist and MAS in JAX.

Trained encoders (`load_encoder`), networks (`build_model`, `models`), videos (`data`)
and what the pretext tasks do on the device (`ops`); `python -m motion_jax.main` trains.

  >>> import motion_jax
  >>> motion_jax.load_encoder("runs/mosi-folder")
  TrainedEncoder(r3d_10, step ...)
    takes [B, T, H, W, 3] RGB, ...

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
