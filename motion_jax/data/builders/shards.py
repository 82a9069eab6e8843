"""Writes the shards of a data set in parallel, each complete or not at all.

While a data set is being made its folder holds `data`, the shards under their final
names, and `parts`, a JSON file for each shard that is complete. A repeated command
writes those that are missing, or whose files have changed meanwhile.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from motion_jax.config import UserError
from motion_jax.data import disk, host
from motion_jax.data.builders import encoding
from motion_jax.data.builders.base import Dataset
from motion_jax.data.builders.plan import Shard
from motion_jax.data.sources import DecodeError
from motion_jax.data.worker import serve_parent
from motion_jax.progress import progress_bar

_POLL_SECONDS = 0.5


def write(path: pathlib.Path, examples: Iterable[dict], serialize: Callable) -> dict:
  """Writes a shard; it appears under its name only when it is complete.

  Args:
    path: of the shard.
    examples: features of its records.
    serialize: see `Dataset.serializer`.

  Returns:
    ids and labels of its records, their `bytes`, and the `size` of the file.

  Raises:
    OSError: if it cannot be written.
  """
  part: dict[str, Any] = {"ids": [], "labels": [], "bytes": 0}
  with disk.new_records(path, "group_size:1,uncompressed") as store:
    for example in examples:
      record = serialize(example)
      store(record)
      part["ids"].append(example["id"])
      part["labels"].append(int(example["label"]))
      part["bytes"] += len(record)
  return part | {"size": path.stat().st_size}


@dataclasses.dataclass(frozen=True)
class Job:
  """The making of a data set in a folder of its own; see the module.

  Attributes:
    dataset: what is made.
    folder: where, until it is complete.
    short_side: largest length of the shorter side in pixels; images keep theirs.
  """

  dataset: Dataset
  folder: pathlib.Path
  short_side: int

  def path(self, shard: Shard) -> pathlib.Path:
    place = self.folder / "data", shard.split, shard.number, shard.of
    return self.dataset.shard_path(*place)

  def note(self, shard: Shard) -> pathlib.Path:
    name = f"{shard.split}-{shard.number:05d}-of-{shard.of:05d}.json"
    return self.folder / "parts" / name

  def finished(self, shard: Shard, strict: bool) -> dict | None:
    """What was written to a shard, if all was and its files are still the same."""
    try:
      part = json.loads(self.note(shard).read_text(encoding="utf-8"))
      if part["sources"] != _sources(shard.items) or (strict and part["lost"]):
        return None
      if self.path(shard).stat().st_size != part["size"]:
        return None
    except (OSError, ValueError, KeyError):
      return None
    return part

  def make(self, shard: Shard, advance: Callable[[], None]) -> dict:
    """Encodes and writes a shard, and a note of what it holds."""
    damaged, lost = {}, []

    def examples():
      for item in shard.items:
        try:
          example, damage = encoding.encode(item, self.dataset.layout, self.short_side)
          if damage:
            damaged[item.id] = damage
          yield example
        except DecodeError as error:
          damaged[item.id] = str(error)
          lost.append(item.id)
        advance()

    sources = _sources(shard.items)
    part = write(self.path(shard), examples(), _serializer(self.dataset))
    part |= {"damaged": damaged, "lost": lost, "sources": sources}
    disk.write_json(self.note(shard), part)
    return part


def write_all(
  job: Job, shards: Sequence[Shard], *, workers: int, strict: bool
) -> list[dict]:
  """Encodes and writes the shards that are not there yet.

  Args:
    job: what they are part of.
    shards: all of them.
    workers: processes; 0 for one per core.
    strict: shards with lost records are written again, too.

  Returns:
    What `write` returned of each shard, by identifier what is wrong with `damaged`
    records, and which of these are `lost`.

  Raises:
    OSError: if something cannot be written.
    UserError: if a process has died.
  """
  for name in ("data", "parts"):
    (job.folder / name).mkdir(parents=True, exist_ok=True)
  known = {job.path(shard).name for shard in shards}
  for path in (job.folder / "data").iterdir():
    if path.name not in known:  # of a killed process, or of another plan
      path.unlink()
  parts = {shard: job.finished(shard, strict) for shard in shards}
  todo = [shard for shard, part in parts.items() if part is None]
  workers = min(workers or host.cores(), len(todo))
  total, left = (sum(len(shard.items) for shard in some) for some in (shards, todo))
  bar = progress_bar(total=total, initial=total - left, unit=" files", desc="encoding")
  with bar:
    if workers > 1:
      parts |= _make_in_processes(job, todo, workers, bar)
    else:
      parts |= {shard: job.make(shard, bar.update) for shard in todo}
  return [*parts.values()]


def publish(
  job: Job,
  shards: Sequence[Shard],
  parts: Sequence[dict],
  target: pathlib.Path,
  metadata: Mapping[str, Any],
) -> None:
  """Makes a data set of complete shards; it appears as `target` when it is whole.

  Args:
    job, shards: as for `write_all`; the job's folder is removed.
    parts: what that returned.
    target: folder of the data set.
    metadata: see `Dataset.describe`.
  """
  splits: dict[str, list[dict]] = {}
  for shard, part in zip(shards, parts, strict=True):
    splits.setdefault(shard.split, []).append(part)  # it may hold no record
  splits = {
    split: own for split, own in splits.items() if any(part["ids"] for part in own)
  }
  data = job.folder / "data"
  job.dataset.describe(data, splits, metadata)
  target.parent.mkdir(parents=True, exist_ok=True)
  os.replace(data, target)
  shutil.rmtree(job.folder)


@functools.lru_cache(maxsize=1)
def _serializer(dataset):
  return dataset.serializer()


def _sources(items):
  """A number that changes when one of the files does."""
  digest, versions = hashlib.blake2b(digest_size=16), {}
  for item in items:
    if item.path not in versions:  # an archive is that of many items
      versions[item.path] = _version(item.path)
    text = repr((dataclasses.astuple(item), versions[item.path]))
    digest.update(os.fsencode(text))
  return digest.hexdigest()


def _version(path):
  """Size and time of a file, or of all files of a folder of frames."""
  try:
    if os.path.isdir(path):
      with os.scandir(path) as entries:
        rows = sorted((entry.name, entry.stat()) for entry in entries)
    else:
      rows = [("", os.stat(path))]
  except OSError:  # it will be found missing when it is encoded
    return ()
  return [(name, status.st_size, status.st_mtime_ns) for name, status in rows]


class _Stopped(Exception):
  """Another process has failed, or the user wants an end."""


def _make_in_processes(job, todo, workers, bar):
  context = multiprocessing.get_context("spawn")
  done, stop = context.Value("q", 0), context.Event()
  pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start, (done, stop))
  made, before = {}, bar.n
  try:
    running = {pool.submit(_make_here, job, shard): shard for shard in todo}
    while running:
      ready, _ = concurrent.futures.wait(
        running, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
      )
      bar.update(before + done.value - bar.n)
      made |= {running.pop(future): future.result() for future in ready}
  except concurrent.futures.process.BrokenProcessPool as error:
    raise UserError(
      "a worker process ended, perhaps for lack of memory. Run the same command "
      "again, with fewer --workers; what is done is kept."
    ) from error
  finally:
    stop.set()  # the others end with the record that they are at
    pool.shutdown(cancel_futures=True)
  return made


def _start(done, stop):
  """Prepares a worker process."""
  serve_parent(signal.SIGINT)  # a pool that is broken ends its processes by SIGTERM

  def advance():
    if stop.is_set():
      raise _Stopped
    with done.get_lock():
      done.value += 1

  global _advance
  _advance = advance


def _make_here(job, shard):
  return job.make(shard, _advance)
