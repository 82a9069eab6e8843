"""What is damaged in a checkpoint: every part is read, without its network."""

import json
import pathlib

import tensorstore  # what Orbax stores arrays with

# Parts of a checkpoint that a training writes, beside `aux` where there are arrays.
_DATA, _CONFIG = "data", "config"
_WEIGHTS = ("params", _CONFIG)
_TRAINING = (*_WEIGHTS, "loop", _DATA)


def damaged_part(folder: pathlib.Path) -> str:
  """Names the first part of a checkpoint that is missing or cannot be read.

  Every file that restoring needs is read; as Orbax keeps checksums, so is whether it
  holds what was written. No process waits for another.

  Args:
    folder: of one checkpoint.

  Returns:
    'params: manifest.ocdbt is empty', say; '' if nothing is damaged.
  """
  present = {path.name for path in folder.iterdir() if path.is_dir()}
  expected = {*_known_parts(folder)} | {
    *(_WEIGHTS if has_no_training(folder) else _TRAINING)
  }
  for part in sorted(present | expected):
    if part not in present:
      return f"{part}: missing"
    try:
      _read(folder / part)
    except (OSError, ValueError, KeyError) as error:
      return f"{part}: {_first_line(error)}"
  return ""


def has_no_training(folder: pathlib.Path) -> bool:
  """Whether a checkpoint was written with weights alone: there is nothing to resume."""
  known = _known_parts(folder) or [path.name for path in folder.iterdir()]
  return not {"loop", "optimizer", _DATA} & {*known}


def _known_parts(folder):
  """The parts that Orbax has noted when it wrote the checkpoint; [] if that is lost."""
  try:
    return [*json.loads((folder / "_CHECKPOINT_METADATA").read_text())["item_handlers"]]
  except (OSError, ValueError, KeyError, TypeError):
    return []


def _read(part: pathlib.Path) -> None:
  """Reads a part as a whole; raises what is wrong with it."""
  if (part / "metadata").exists() or part.name in (_DATA, _CONFIG):
    _json(part / "metadata")
    return
  for path in (part / "_METADATA", *part.glob("array_metadatas/*")):
    _json(path)
  spec = {"driver": "ocdbt", "base": f"file://{part.absolute()}/"}
  store = tensorstore.KvStore.open(spec).result()
  keys = store.list().result()
  if not keys:
    raise ValueError("manifest.ocdbt is missing")
  for key in keys:
    store.read(key).result()


def _json(path):
  try:
    return json.loads(path.read_text())
  except FileNotFoundError as error:
    raise ValueError(f"{path.name} is missing") from error
  except ValueError as error:
    state = "damaged" if path.stat().st_size else "empty"
    raise ValueError(f"{path.name} is {state}") from error


def _first_line(error):
  return str(error).splitlines()[0][:200]
