"""A trained encoder for use without motion_jax.

  python -m motion_jax.export --init_from=runs/mosi --out=encoder.stablehlo
  python -m motion_jax.export --init_from=runs/mosi --out=encoder.pth [--layout=tada]

`.stablehlo` is the whole function from uint8 clips to features, for any number of
clips, on CPU, GPU and TPU. JAX alone runs it:

  import pathlib, jax.export
  encode = jax.export.deserialize(pathlib.Path("encoder.stablehlo").read_bytes()).call
  features = encode(video)  # [B, T, S, S, 3] uint8, RGB -> [B, D] float32

`.pth` is a PyTorch state_dict with the names of another program.
"""

import os
import pathlib
import sys

import jax
import jax.export
import jax.numpy as jnp
from absl import flags

from motion_jax import checkpoint, command, logs
from motion_jax.config import UserError, choose
from motion_jax.models import convert

_INIT_FROM = flags.DEFINE_string("init_from", "", "Folder of a run, or a checkpoint.")
_OUT = flags.DEFINE_string("out", "", "File to write: .stablehlo or .pth.")
_LAYOUT = flags.DEFINE_string("layout", "tada", "Names of arrays in a .pth file.")

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def main() -> None:
  """Exports as the flags say."""
  logs.to_console()
  if not _INIT_FROM.value or not _OUT.value:
    raise UserError("give --init_from=RUN and --out=FILE.stablehlo or FILE.pth")
  out = pathlib.Path(_OUT.value).expanduser()
  if out.suffix not in (".stablehlo", ".pth"):
    raise UserError(f"--out={out} must end in .stablehlo or .pth")
  out.parent.mkdir(parents=True, exist_ok=True)
  if out.suffix == ".pth":
    trained = checkpoint.load_encoder(_INIT_FROM.value)
    save_state_dict(trained, out, _LAYOUT.value)
  else:
    # The other lowerings want to know the number of clips.
    trained = checkpoint.load_encoder(_INIT_FROM.value, lowering="native")
    save_function(trained, out)
  print(f"{out}: {trained}")


def save_function(
  trained: checkpoint.TrainedEncoder, path: str | os.PathLike
) -> jax.export.Exported:
  """Writes an encoder with its weights as serialised StableHLO.

  Args:
    trained: from `load_encoder(..., lowering='native')`.
    path: file to write.

  Returns:
    What was written; its `call` maps [B, T, S, S, 3] uint8 to [B, D] float32.
  """
  method = trained.config.method
  (clips,) = jax.export.symbolic_shape("clips")
  shape = (clips, method.frames, method.size, method.size, 3)
  exported = jax.export.export(jax.jit(trained), platforms=PLATFORMS)(
    jax.ShapeDtypeStruct(shape, jnp.uint8)
  )
  try:
    pathlib.Path(path).write_bytes(exported.serialize())
  except ImportError as error:
    raise UserError(
      "writing StableHLO needs flatbuffers: pip install -e '.[export]'"
    ) from error
  return exported


def save_state_dict(
  trained: checkpoint.TrainedEncoder, path: str | os.PathLike, layout: str
) -> None:
  """Writes an encoder's weights as a PyTorch state_dict.

  Args:
    trained: from `load_encoder`.
    path: file to write.
    layout: whose names the arrays get, one of `convert.LAYOUTS`.

  Raises:
    UserError: if the network has no counterpart there.
  """
  choose("layout", layout, convert.LAYOUTS)
  try:
    arrays = convert.export_weights(trained.module, layout)
  except (ValueError, AttributeError) as error:
    raise UserError(
      f"{trained.config.model.name} cannot be written with the names of {layout!r}: "
      f"{error}; other layouts are {', '.join(convert.LAYOUTS)}"
    ) from error
  convert.save_torch(path, arrays)


if __name__ == "__main__":
  sys.exit(command.run(main, sys.argv))
