"""What a pass over records has found so far, in files, so that it goes on later."""

import contextlib
import hashlib
import json
import logging
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

logger = logging.getLogger("motion_jax")

UNFINISHED = "unfinished"  # folder for parts in that of a run

_SECONDS = 60  # between two parts; shorter passes leave none
_FREE = (
  r"eval\.(batch_size|online_videos)|data\.(threads|workers)"  # what determines nothing
)
_begun: set[pathlib.Path] = set()  # folders of the passes of this process


class Parts:
  """The parts of one pass, each a file with what a process found in a minute.

  They have a folder of their own, named after all that determines what is found, so
  that another pass never takes them for its own. Of hosts that have the data in
  different places, those of process 0 count. All processes make and load them together.

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
    # The same names elsewhere may be of other videos.
    places = source.name, source.split, os.environ.get("TFDS_DATA_DIR")
    about = [what, digest.hexdigest(), records, places, _settings(config)]
    key = hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()
    self.folder = folder / hosts.everyones(key[:16])[0]
    self._saved, self._written = time.monotonic(), 0

  def load(self) -> tuple[list[int], list[np.ndarray]]:
    """Positions and values of this process's share of the parts, as `save` takes them.

    Each part is loaded by one process.
    """
    _begun.add(self.folder)
    names = sorted(path.name for path in self.folder.glob("*.npz"))
    names = hosts.everyones(names)[0]  # storage may show the others less
    positions, values = [], []
    for name in names[jax.process_index() :: jax.process_count()]:
      try:
        with np.load(self.folder / name) as part:
          some, their_values = part["positions"].tolist(), [*part["values"]]
      except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        continue  # what is damaged is found again
      positions += some
      values += their_values
    self._written = len(positions)
    return positions, values

  def save(self, positions: list[int], values: list[np.ndarray]) -> None:
    """Writes what has come since the last part, if that was a minute ago.

    What cannot be written, as when another pass of the same work has just ended and
    removed the folder, is tried again with the next part.

    Args:
      positions: of all records so far that this process has values of; first those
        that `load` has returned.
      values: what was found of them.
    """
    new = slice(self._written, len(positions))
    if time.monotonic() - self._saved < _SECONDS or new.start == new.stop:
      return
    self._saved = time.monotonic()
    # No other part begins with that record: it is not asked for again.
    path = self.folder / f"{positions[new.start]:08d}.npz"
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
      save_arrays(path, positions=np.asarray(positions[new]), values=values[new])
    except OSError as error:
      logger.warning("not kept for another start, for now: %s", error)
    else:
      self._written = new.stop


def save_arrays(path: pathlib.Path, **arrays) -> None:
  """Writes an .npz that is there whole or not at all."""
  temporary = path.with_suffix(".tmp")
  with open(temporary, "wb") as file:
    np.savez(file, **arrays)
  os.replace(temporary, path)


def remove_unfinished(workdir: pathlib.Path) -> None:
  """Removes the parts of this process's passes; when what they are for is written.

  Another process may be in the midst of passes of the same run.
  """
  parent = workdir / UNFINISHED
  own = {folder for folder in _begun if folder.parent == parent}
  _begun.difference_update(own)
  if jax.process_index() == 0:
    for folder in own:
      shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # it has others, or there were no parts
      parent.rmdir()


def _settings(config) -> dict:
  return {
    f"{section}.{name}": value
    for section in ("method", "model", "data", "eval")
    for name, value in config.get(section, ConfigDict()).to_dict().items()
    if not re.fullmatch(_FREE, f"{section}.{name}")
  }
