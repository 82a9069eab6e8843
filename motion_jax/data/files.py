"""Which files of a folder are media, told from their names; no file is opened."""

from __future__ import annotations

import collections
import heapq
import logging
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping

from motion_jax.data import storage

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


def find(
  root: str | os.PathLike, suffixes: Collection[str]
) -> tuple[list[str], dict[str, int]]:
  """Finds the media of a folder and of all folders in it, or of a zip archive.

  Links to folders are followed, but no folder is listed twice: of several ways to it
  the one without a link counts, of links the first by name. What begins with a dot is
  left out; a folder that cannot be listed is named in the log.

  Args:
    root: the folder or archive.
    suffixes: endings that count, in lower case.

  Returns:
    Their paths in `root`, with slashes, sorted; how often each other ending is there.
  """
  if os.path.isdir(root):
    names = _walk(root)
  else:
    with zipfile.ZipFile(root) as archive:
      names = archive.namelist()
  found, others = [], collections.Counter()
  for name in sorted(names):
    if suffix(name) not in suffixes:
      others[suffix(name)] += 1
    elif not os.path.basename(name).startswith("."):
      found.append(name)
  return found, others


def counts_text(endings: Mapping[str, int]) -> str:
  """How often there is each ending: '12 x .txt, 3 x .zip', 'none'."""
  most = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
  words = [f"{count} x {end or 'no suffix'}" for end, count in most[:_SHOWN]]
  rest = sum(count for _, count in most[_SHOWN:])
  return ", ".join(words + ([f"{rest} others"] if rest else [])) or "none"


def suffix(name: str) -> str:
  """Returns the ending of a file's name in lower case, with its dot."""
  return os.path.splitext(name)[1].lower()


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


def _walk(root: str) -> Iterator[str]:
  """Lists the files of a folder and of all folders in it, with slashes."""
  seen, pending = set(), [(False, "")]  # (found through a link, path)
  while pending:
    linked, inside = heapq.heappop(pending)
    where = os.path.realpath(os.path.join(root, inside))
    if where in seen:
      continue
    seen.add(where)
    try:
      with os.scandir(where) as entries:
        for entry in entries:
          if entry.name.startswith("."):
            continue
          path = f"{inside}/{entry.name}" if inside else entry.name
          if _is_folder(entry):
            heapq.heappush(pending, (linked or entry.is_symlink(), path))
          else:
            yield path
    except OSError as error:
      storage.check_error(error, where)
      logger.warning("left out %s: %s", where, error.strerror)


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False
