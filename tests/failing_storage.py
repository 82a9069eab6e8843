"""Files that their storage does not give: each read of them is an input/output error.

They become links to the memory of whoever reads, which the kernel does not map at 0.
"""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def failing(*paths: pathlib.Path):
  """Lets files fail; they are mended at the end, or by calling what this yields."""
  kept = {path: path.with_name(f".{path.name}.kept") for path in paths}

  def mend():
    for path, place in kept.items():
      if place.exists():
        os.replace(place, path)

  for path, place in kept.items():
    os.replace(path, place)
    path.symlink_to("/proc/self/mem")
  try:
    yield mend
  finally:
    mend()
