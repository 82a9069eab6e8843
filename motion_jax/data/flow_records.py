"""Prepared motion: where it lies, whether it fits, and random access to its frames."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from motion_jax.config import UserError, choose
from motion_jax.data import disk, flow_files, motion_codec, storage
from motion_jax.data.absent import AbsentSource
from motion_jax.data.datasets import DatasetSource
from motion_jax.data.flow_files import Head
from motion_jax.data.record_files import RecordFiles
from motion_jax.data.sources import Source, decode_errors
from motion_jax.data.subsets import Subset

logger = logging.getLogger("motion_jax")

METHODS = ("raft", "variational")
_DAMAGED = "its prepared motion is damaged"


class FlowRecords:
  """Motion frames of videos, by the videos' identifiers.

  Attributes:
    path: the folder.
    description: what it was made from and how; see `prepare_flow.prepare_flow`.
    channels: of a frame, 1 for edges and 2 for flow.
  """

  def __init__(self, path: str | os.PathLike, command: str = ""):
    """Opens a prepared set.

    Args:
      path: its folder; see `flow_folder`.
      command: that prepares it, for messages.

    Raises:
      UserError: if it is damaged or incomplete, or written by another version of this
        program.
    """
    self.path = pathlib.Path(path)
    again = f"then run\n{command}" if command else "and prepare the motion again"
    try:
      self.description = json.loads((self.path / "description.json").read_text())
      index = json.loads((self.path / "index.json").read_text())
    except (OSError, ValueError) as error:
      storage.check_error(error, path)  # nothing is to be deleted for it
      raise UserError(f"{path} is damaged ({error}); delete it, {again}") from error
    found = {key: self.description.get(key) for key in ("version", "limit")}
    limit = motion_codec.LIMITS.get(self.description.get("store"))
    expected = {"version": flow_files.VERSION, "limit": limit}
    if found != expected:
      raise UserError(
        f"{path} was written by another version ({found}, expected {expected}); delete "
        f"it, {again}"
      )
    lost = _incomplete(self.path, index)
    if lost:
      raise UserError(
        f"{path} is incomplete: {len(lost)} of {len(index['shards'])} files are "
        f"missing or shorter, such as {lost[0]}; delete it, {again}"
      )
    self.channels = motion_codec.CHANNELS[self.description["store"]]
    self._firsts = dict(zip(index["ids"], index["firsts"], strict=True))
    files = [(os.fspath(self.path / n), k) for n, k in index["shards"]]
    self._records = RecordFiles(files)  # opens them when they are first read

  def __reduce__(self):
    return FlowRecords, (self.path,)  # worker processes read the index anew

  def __len__(self) -> int:
    return len(self._firsts)

  def __contains__(self, name: str) -> bool:
    return name in self._firsts

  def head(self, name: str) -> Head:
    """Reads the number of frames, their size and their strengths of a video.

    Raises:
      DecodeError: if its motion is damaged.
      StorageFault: if it cannot be read.
    """
    with decode_errors(_DAMAGED):
      return flow_files.unpack_head(self._records[self._firsts[name]])

  def frames(
    self, head: Head, indices: Sequence[int], size: tuple[int, int] | None = None
  ) -> list[np.ndarray]:
    """Decodes motion frames of a video.

    Args:
      head: of the video.
      indices: frame numbers in [0, num_frames), repeats allowed.
      size: (height, width) to which frames are resized; None for their own.

    Returns:
      For each index [H, W, channels] uint8, the code of `motion_codec`.

    Raises:
      DecodeError, StorageFault: as for `head`.
    """
    with decode_errors(_DAMAGED):
      return self._decoded(head, indices, size)

  def _decoded(self, head, indices, size):
    wanted = np.unique(np.asarray(indices, np.int64))
    first, found = self._firsts[head.id] + 1, {}
    for chunk in np.unique(wanted // flow_files.CHUNK):
      start = int(chunk) * flow_files.CHUNK
      count = min(flow_files.CHUNK, head.num_frames - start)
      inside = wanted[wanted // flow_files.CHUNK == chunk]
      record = self._records[first + int(chunk)]
      encoded = flow_files.unpack_frames(record, count, inside - start)
      for index, data in zip(inside, encoded, strict=True):
        frame = flow_files.decode_frame(data, self.channels)
        found[int(index)] = resize_motion(frame, size or frame.shape[:2])
    return [found[int(index)] for index in indices]


class AbsentFlow(NamedTuple):
  """Stands for the motion of an `AbsentSource`, of which only the shape is known."""

  channels: int


def open_flow(
  source: Source,
  *,
  method: str,
  store: str,
  interval: int,
  short_side: int | None = None,
  data_dir: str = "",
) -> FlowRecords | AbsentFlow:
  """Opens the prepared motion of a source's videos.

  Args:
    source: whose videos are wanted.
    method: "raft" or "variational".
    store: "edges" or "flow".
    interval: the motion is from frame t to t - interval.
    short_side: pixels to which larger videos were reduced, in which flow is measured;
      None for any.
    data_dir: root of prepared data sets; '' for the default.

  Raises:
    UserError: if it has not been prepared, is incomplete, was prepared otherwise or
      from other videos; the message has the command that prepares it.
  """
  choose("data.flow", method, METHODS)
  choose("kind of prepared motion", store, [*motion_codec.CHANNELS])
  if isinstance(source, AbsentSource):
    return AbsentFlow(motion_codec.CHANNELS[store])
  path = flow_folder(source, method, store, interval, data_dir)
  command = flow_command(source.name, method, store, interval, short_side, data_dir)
  if not path.is_dir():
    raise UserError(_absent(source, path, command))
  flow = FlowRecords(path, command)
  asked = {"method": method, "store": store, "interval": interval}
  side = flow.description.get("short_side")
  if short_side is not None:
    asked["short_side"] = short_side
  found = {key: flow.description.get(key) for key in asked}
  if found != asked:
    is_other_size = found | {"short_side": short_side} == asked
    raise UserError(
      f"{path} holds {found}, not {asked}; delete it, then run\n{command}"
      + (f"\nor take it by data.flow_short_side={side}" if is_other_size else "")
    )
  lost = [name for name in map(source.id_of, range(len(source))) if name not in flow]
  if lost:
    raise UserError(
      f"the motion in {path} was made from another list of videos: {len(lost)} of "
      f"{len(source)} are not in it, such as {lost[0]!r}. Delete it, then run\n"
      f"{command}"
    )
  logger.info(
    "motion of %s, %s: %s of %s flow over %d frames, short side %s, from %s",
    *(source.name, source.split, store, method, interval, side, path),
  )
  return flow


def flow_folder(
  source: Source, method: str, store: str, interval: int, data_dir: str = ""
) -> pathlib.Path:
  """Where the motion of a source's data set is: beside the data set, or by folder.

  All splits share it. A folder of the user's own is told by a hash of its path.
  """
  while isinstance(source, Subset):
    source = source.source
  if isinstance(source, DatasetSource):
    name = source.full_name
  else:
    real = os.path.realpath(source.name)
    digest = hashlib.blake2b(os.fsencode(real), digest_size=6).hexdigest()
    name = f"folder/{os.path.basename(real)}-{digest}"
  return disk.data_root(data_dir) / "flow" / name / f"{method}_{store}_{interval}"


def partial_folder(path: pathlib.Path) -> pathlib.Path:
  """Where a set is while it is being made."""
  return path.with_name(f".{path.name}.partial")


def flow_command(
  name: str,
  method: str,
  store: str,
  interval: int,
  short_side: int | None = None,
  data_dir: str = "",
) -> str:
  """The command that prepares the motion of a data set or folder."""
  words = [f"--dataset={shlex.quote(name)}", f"--method={method}", f"--store={store}"]
  if method == "raft":
    words.append("--weights=RAFT_THINGS.pth")
  words.append(f"--interval={interval}")
  if short_side is not None:
    words.append(f"--short_side={short_side}")
  if data_dir:
    words.append(f"--data_dir={shlex.quote(os.fspath(data_dir))}")
  return f"python -m motion_jax.prepare flow {' '.join(words)}"


def resize_motion(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """[H, W, C] uint8 to (height, width): averaged or interpolated, and rounded.

  Edges are thin: to interpolate smaller frames would lose some of them. Rounding keeps
  still places of flow at their code, 128. Sizes that differ by a pixel, as rounded ones
  do, are one size: the last row or column is cut off, or repeated.
  """
  if frame.shape[:2] == size:
    return frame
  lacking = np.subtract(size, frame.shape[:2])
  if np.abs(lacking).max() <= 1:
    frame = frame[: size[0], : size[1]]
    if not (lacking > 0).any():
      return frame
    return np.pad(frame, [(0, max(0, rows)) for rows in (*lacking, 0)], mode="edge")
  way = cv2.INTER_AREA if size[0] < frame.shape[0] else cv2.INTER_LINEAR
  return cv2.resize(frame, size[::-1], interpolation=way).reshape(*size, -1)


def _incomplete(path: pathlib.Path, index: dict) -> list[str]:
  """Names of files that are missing, or shorter than the index says if it does."""
  names = [name for name, _ in index["shards"]]
  wanted = index.get("sizes", [0] * len(names))
  files = [path / name for name in names]
  sizes = [file.stat().st_size if file.is_file() else -1 for file in files]
  rows = zip(names, sizes, wanted, strict=True)
  return [name for name, size, least in rows if size < least]


def _absent(source: Source, path: pathlib.Path, command: str) -> str:
  partial = partial_folder(path)
  if partial.is_dir():
    done = len([*partial.glob("flow-*.json")])
    return (
      f"the motion of {source.name} is not complete: {done} shards are done in "
      f"{partial}. Go on with\n{command}"
    )
  others = sorted(p.name for p in path.parent.glob("[!.]*") if p.is_dir())
  note = f"; {path.parent} has {', '.join(others)}" if others else ""
  return (
    f"there is no {path.name} motion of {source.name}{note}. Prepare it with\n"
    f"{command}\nor compute it in every step by data.flow='' (MoDist's not on "
    "GPUs yet, on TPUs untried: docs/speed.md)"
  )
