"""The number formats that networks compute in."""

import jax
import jax.numpy as jnp

DTYPES = ("auto", "float32", "bfloat16")
PRECISIONS = ("default", "high", "highest")

# Of products that stay float32 on any device. By default their factors are rounded: to
# bfloat16 on TPUs, to TF32 on GPUs.
FLOAT32 = jax.lax.Precision.HIGHEST


def compute_dtype(name: str) -> jnp.dtype:
  """Resolves `model.dtype`; parameters, statistics and losses stay float32.

  Args:
    name: 'float32', 'bfloat16', or 'auto': bfloat16 on TPU and GPU, float32 on CPU.

  Raises:
    ValueError: for another name.
  """
  if name not in DTYPES:
    raise ValueError(f"unknown dtype {name!r}; known: {', '.join(DTYPES)}")
  if name == "auto":
    name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(name)
