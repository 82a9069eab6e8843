"""What a pass over records has found so far, in files, so that it goes on later."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import time
import zipfile

import jax
import numpy as np
from ml_collections import ConfigDict

from motion_jax.data.sources import Source
from motion_jax.scale import hosts

UNFINISHED = "unfinished"  # folder for parts in that of a run

_SECONDS = 60  # between two parts; shorter passes leave none
_FREE = rf"eval\.batch_size|{hosts.OWN_SETTINGS}"  # what determines nothing


class Parts:
  """The parts of one pass, each a file with what a process found in a minute.

  They have a folder of their own, named after all that determines what is found, so
  that another pass never takes them for its own.

  Args:
    folder: what holds such folders, on storage that all processes share.
    what: is found.
    config: a whole config; of its sections count those that say what clips are.
    weights: of the networks; a tree of arrays.
    source: the records.
  """

  def __init__(
    self, folder: pathlib.Path, what: str, config: ConfigDict, weights, source: Source
  ):
    digest = hashlib.sha256()
    for array in jax.tree.leaves(jax.device_get(weights)):
      digest.update(np.asarray(array).tobytes())
    records = hosts.digest_of_records([source])
    about = [what, digest.hexdigest(), records, _settings(config)]
    key = hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()
    self.folder = folder / key[:16]
    self._saved, self._written = time.monotonic(), 0

  def load(self) -> tuple[list[int], list[np.ndarray]]:
    """The positions and the values in all parts, which `save` then leaves out."""
    positions, values = [], []
    for path in sorted(self.folder.glob("*.npz")):
      try:
        with np.load(path) as part:
          some, their_values = part["positions"].tolist(), [*part["values"]]
      except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        continue  # what is damaged is found again
      positions += some
      values += their_values
    self._written = len(positions)
    return positions, values

  def save(self, positions: list[int], values: list[np.ndarray]) -> None:
    """Writes what has come since the last part, if that was a minute ago.

    Args:
      positions: of all records so far that this process has values of, each once.
      values: what was found of them.
    """
    new = slice(self._written, len(positions))
    if time.monotonic() - self._saved < _SECONDS or new.start == new.stop:
      return
    self.folder.mkdir(parents=True, exist_ok=True)
    # No other part begins with that record: it is not asked for again.
    path = self.folder / f"{positions[new.start]:08d}.npz"
    save_arrays(path, positions=np.asarray(positions[new]), values=values[new])
    self._saved, self._written = time.monotonic(), new.stop


def save_arrays(path: pathlib.Path, **arrays) -> None:
  """Writes an .npz that is there whole or not at all."""
  temporary = path.with_suffix(".tmp")
  with open(temporary, "wb") as file:
    np.savez(file, **arrays)
  os.replace(temporary, path)


def remove_unfinished(workdir: pathlib.Path) -> None:
  """Removes the parts of all passes of a run; when what they are for is written."""
  if jax.process_index() == 0:
    shutil.rmtree(workdir / UNFINISHED, ignore_errors=True)


def _settings(config) -> dict:
  return {
    f"{section}.{name}": value
    for section in ("method", "model", "data", "eval")
    for name, value in config.get(section, ConfigDict()).to_dict().items()
    if not re.fullmatch(_FREE, f"{section}.{name}")
  }
