"""A trained encoder for use without motion_jax.

  python -m motion_jax.export --init_from=RUN --out=encoder.stablehlo
  python -m motion_jax.export --init_from=RUN --out=encoder.pth [--layout=tada]

`.stablehlo` is the whole function from uint8 clips to features, for any number of
clips, on CPU, GPU and TPU. JAX alone runs it:

  import pathlib, jax.export
  encode = jax.export.deserialize(pathlib.Path("encoder.stablehlo").read_bytes()).call
  features = encode(video)  # [B, T, S, S, 3] uint8, RGB -> [B, D] float32

`.pth` is a PyTorch state_dict with the names of another program, with the classifier
of a fine-tuned run and MoSI's of its pretext task.
"""

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Sequence

import jax
import jax.export
import jax.numpy as jnp

from motion_jax import logs
from motion_jax.commands import command
from motion_jax.config import UserError, choose, local_path
from motion_jax.models import convert
from motion_jax.training.trained_encoder import TrainedEncoder, load_encoder

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def main(arguments: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    "python -m motion_jax.export",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--init_from", required=True, help="a run, or a checkpoint")
  parser.add_argument("--out", required=True, help="file: .stablehlo or .pth")
  names = "names of arrays in a .pth file; tada, of a fine-tuned run tada_finetuned"
  parser.add_argument("--layout", default="", help=names)
  options = parser.parse_args(arguments)
  return command.run(lambda: _export(vars(options)), ["export"])


def _export(options):
  try:
    export(**options)
  except OSError as error:
    raise UserError(f"--out={options['out']} cannot be written: {error}") from error


def export(init_from: str, out: str, layout: str = "") -> None:
  """Writes an encoder as the ending of the file says; see the module.

  Args:
    init_from: folder of a run, or one of its checkpoints.
    out: file to write.
    layout: for .pth, one of `convert.LAYOUTS`; '' for MoSI's.

  Raises:
    UserError: if there is no such encoder, or it cannot be written that way.
  """
  logs.to_console()
  out = local_path(out)
  if out.suffix not in (".stablehlo", ".pth"):
    raise UserError(f"--out={out} must end in .stablehlo or .pth")
  out.parent.mkdir(parents=True, exist_ok=True)
  if out.suffix == ".pth":
    trained = load_encoder(init_from)
    is_classifier = "classes" in trained.config.method
    own = "tada_finetuned" if is_classifier else "tada"
    save_state_dict(trained, out, layout or own)
  else:
    # The other lowerings want to know the number of clips.
    trained = load_encoder(init_from, lowering="native")
    save_function(trained, out)
  print(f"{out}: {trained}")


def save_function(
  trained: TrainedEncoder, path: str | os.PathLike
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
  trained: TrainedEncoder, path: str | os.PathLike, layout: str
) -> None:
  """Writes an encoder's weights, and its classifier's, as a PyTorch state_dict.

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
  except ValueError as error:
    raise UserError(_refusal(trained, path, layout, error)) from error
  convert.save_torch(path, arrays | _classifier(trained, layout))
  eps = next(trained.module.paths()).norms[0].eps
  logs.logger.info("the PyTorch network needs batch norms with eps=%g", eps)


def _refusal(trained, path, layout, error):
  name, fitting = trained.config.model.name, []
  for other in convert.LAYOUTS:
    with contextlib.suppress(ValueError):
      convert.export_weights(trained.module, other)
      fitting.append(other)
  function = f"--out={pathlib.Path(path).with_suffix('.stablehlo')}"
  if not fitting:
    return (
      f"{name} cannot be written as .pth: no published PyTorch program has names for "
      f"it; it exports as StableHLO: {function}"
    )
  return (
    f"{name} cannot be written with the names of {layout!r}: {error}; names that fit: "
    f"{', '.join(fitting)}; {function} writes any network"
  )


def _classifier(trained, layout):
  """Arrays of the run's classifier by their names in the layout; {} without them."""
  heads = trained.classifiers
  if len(heads) == 1:
    try:
      return convert.export_weights(heads[0], layout)
    except ValueError as error:
      reason = str(error)
  elif heads:
    reason = f"layout {layout!r} has no names for {len(heads)} heads"
  else:
    reason = "the run holds none"
  logs.logger.info("the file has no classifier: %s", reason)
  return {}


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
