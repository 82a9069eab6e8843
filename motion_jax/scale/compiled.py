"""The cache of compiled programs, as JAX keeps it: damaged entries are replaced."""

import glob
import logging
import pathlib
import re
import warnings
import zlib

logger = logging.getLogger("motion_jax")

_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_DAMAGED = re.compile("Error reading persistent compilation cache entry for '(.+?)'")


def replace_damaged(folder: pathlib.Path) -> None:
  """Removes an entry that JAX warns of, so that it is written anew.

  A process that is killed while it writes leaves an entry cut short. JAX, which writes
  no entry that is there already, would warn of it and compile again at every start.

  Args:
    folder: of the cache.
  """
  show_others = warnings.showwarning

  def show(message, *rest, **options):
    found = _DAMAGED.match(str(message))
    if not found:
      return show_others(message, *rest, **options)
    entries = [*folder.glob(f"{glob.escape(found[1])}-*-cache")]
    # Of several with the name, those that are damaged to see; else any of them may be.
    for entry in [path for path in entries if not _is_whole(path)] or entries:
      entry.unlink(missing_ok=True)
    logger.warning("compiled again, since it was damaged in %s: %s", folder, found[1])

  warnings.filterwarnings("always", _DAMAGED.pattern)
  warnings.showwarning = show


def _is_whole(path):
  try:
    content = path.read_bytes()
    if not content.startswith(_ZSTANDARD):  # which only later Pythons can undo
      zlib.decompress(content)
  except (OSError, zlib.error):
    return False
  return True
