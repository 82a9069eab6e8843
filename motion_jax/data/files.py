"""Which files of a folder are media, told from their names; no file is opened."""

from __future__ import annotations

import collections
import heapq
import logging
import os
from collections.abc import Iterator

logger = logging.getLogger("motion_jax")

# What PyAV decodes: containers, then raw streams. An animated picture (gif, apng) is a
# video.
_VIDEOS = """
  3g2 3gp apng asf avi divx dv f4v flv gif ismv m2p m2t m2ts m4v mk3d mkv mov mp4 mpe
  mpeg mpg mts mxf nut ogv qt rm rmvb tp trp ts vob webm wmv wtv
  264 265 avc h264 h265 hevc ivf m1v m2v mjpeg mjpg obu y4m
"""
# What OpenCV decodes; of an animated webp or avif, which PyAV does not, one picture.
_IMAGES = "avif bmp jp2 jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS.split())
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _IMAGES.split())
_SHOWN = 8  # suffixes named in a message


def walk(root: str | os.PathLike) -> Iterator[tuple[str, list[str]]]:
  """Lists the files of a folder and of all folders in it, in a stable order.

  Links to folders are followed, but no folder is listed twice: of several ways to it
  the one without a link counts, of links the first by name. What begins with a dot is
  left out; a folder that cannot be listed is named in the log.

  Args:
    root: the folder.

  Yields:
    (path of a folder in `root`, with slashes, '' for `root` itself; sorted names of its
    files).
  """
  seen, pending = set(), [(False, "")]  # (found through a link, path)
  while pending:
    linked, inside = heapq.heappop(pending)
    where = os.path.realpath(os.path.join(root, inside))
    if where in seen:
      continue
    seen.add(where)
    names = []
    try:
      with os.scandir(where) as entries:
        for entry in entries:
          if entry.name.startswith("."):
            continue
          if _is_folder(entry):
            path = f"{inside}/{entry.name}" if inside else entry.name
            heapq.heappush(pending, (linked or entry.is_symlink(), path))
          else:
            names.append(entry.name)
    except OSError as error:
      logger.warning("left out %s: %s", where, error.strerror)
    yield inside, sorted(names)


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def suffix(name: str) -> str:
  """Returns the ending of a file's name in lower case, with its dot."""
  return os.path.splitext(name)[1].lower()


class PassedOver(collections.Counter):
  """Counts files that are no media by their suffix; as text '12 x .txt, 3 x .zip'."""

  def add(self, name: str) -> None:
    """Counts a file."""
    self[suffix(name)] += 1

  def __str__(self) -> str:
    most = sorted(self.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{count} x {end or 'no suffix'}" for end, count in most[:_SHOWN]]
    rest = sum(count for _, count in most[_SHOWN:])
    return ", ".join(words + ([f"{rest} others"] if rest else []))


def readable(name: str) -> str:
  r"""Returns a file's name as text that UTF-8 can encode; other names, other texts.

  Bytes that are not UTF-8 become \xNN, which is why a backslash becomes two. All other
  names stay as they are.

  Args:
    name: as `os` functions return it, with surrogates for such bytes.
  """
  if name.isascii() and "\\" not in name:
    return name
  return os.fsencode(name.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
