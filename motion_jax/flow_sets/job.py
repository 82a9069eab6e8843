"""The work behind a motion set: shard after shard, then all put together."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np

from motion_jax.config import UserError
from motion_jax.data import flow_files, flow_records
from motion_jax.data.disk import check_same, write_json
from motion_jax.data.sources import Source
from motion_jax.flow_sets.batches import FlowBatches, VideoMotion
from motion_jax.flow_sets.encoder import Encoder
from motion_jax.flow_sets.frame_streams import frame_streams
from motion_jax.progress import progress_bar

logger = logging.getLogger("motion_jax")

_SHARD = 64  # videos per file at least; what an interruption can cost
_MOST_SHARDS = 1024  # of a set; of a large one, an interruption costs a thousandth
_SHOWN = 20  # damaged videos named on the console


@dataclasses.dataclass(frozen=True)
class FlowJob:
  """One motion set in the making, in a folder beside its final place.

  Attributes:
    source: all videos.
    target: where the set will be.
    settings: what it is made from and how; another job's work is never mixed in.
    weights: file, or ''.
    batch_size: pairs per device.
    threads: videos that are decoded at the same time.
  """

  source: Source
  target: pathlib.Path
  settings: dict
  weights: str
  batch_size: int
  threads: int

  @property
  def partial(self) -> pathlib.Path:
    return flow_records.partial_folder(self.target)

  @functools.cached_property
  def _size(self) -> int:
    """Videos per file; a large set that was begun with smaller files keeps these."""
    count = len(self.source)
    begun = any(self.partial.glob(f"flow-*-of-{-(-count // _SHARD):05d}.json"))
    return _SHARD if begun else max(_SHARD, -(-count // _MOST_SHARDS))

  @functools.cached_property
  def stems(self) -> list[pathlib.Path]:
    count = -(-len(self.source) // self._size)
    return [self.partial / f"flow-{i:05d}-of-{count:05d}" for i in range(count)]

  def is_finished(self) -> bool:
    """Tells whether the set exists, and stops if it was made otherwise."""
    if not self.target.is_dir():
      return False
    check_same(self.target, "description.json", self.settings)
    return True

  def work(self, process_index: int, process_count: int) -> None:
    """Computes the shards of this process that are missing."""
    note = self.partial / "settings.json"
    if note.exists():
      check_same(self.partial, note.name, self.settings)
    mine = [*range(len(self.stems))][process_index::process_count]
    size, count = self._size, len(self.source)
    sizes = {n: min(size, count - n * size) for n in mine}
    todo = [n for n in mine if not self.stems[n].with_suffix(".json").exists()]
    if not todo:
      return
    total = sum(sizes.values())
    done = total - sum(sizes[n] for n in todo)
    with (
      concurrent.futures.ThreadPoolExecutor(self.threads) as pool,
      progress_bar(total=total, initial=done, unit=" videos", desc="motion") as bar,
    ):
      settings = self.settings
      encoder = Encoder(pool, settings["store"])
      kind = (settings["method"], self.weights, settings["solver"], settings["store"])
      batches = FlowBatches(*kind, self.batch_size, encoder)  # may refuse the weights
      self.partial.mkdir(parents=True, exist_ok=True)
      if note.exists():  # another host may have been faster
        check_same(self.partial, note.name, settings)
      else:
        write_json(note, settings)
      for number in todo:
        indices = range(number * size, number * size + sizes[number])
        with contextlib.closing(self._videos(indices, batches, bar)) as videos:
          flow_files.write_shard(self.stems[number], videos)
    if summary := encoder.summary():
      logger.info("%s", summary)

  def _videos(self, indices, batches, bar) -> Iterator:
    """Yields (head, encoded frames) of videos, in order."""
    streams = frame_streams(
      self.source,
      indices,
      short_side=self.settings["short_side"],
      threads=self.threads,
    )
    unfinished = collections.deque()
    with contextlib.closing(streams):
      for stream in streams:
        video = VideoMotion(stream.id)
        unfinished.append(video)
        recent = collections.deque(maxlen=self.settings["interval"] + 1)
        for frame in stream:
          recent.append(frame)
          batches.add(video, frame, recent[0])
        video.damage = stream.damage
        while unfinished and unfinished[0].complete:
          yield _finished(unfinished.popleft(), bar)
    batches.flush()
    while unfinished:
      yield _finished(unfinished.popleft(), bar)

  def finish(self) -> None:
    """Puts the shards together, if all are there and no other host has done it."""
    if self.target.is_dir():
      return
    tables = [stem.with_suffix(".json") for stem in self.stems]
    missing = sum(not table.exists() for table in tables)
    if missing:
      logger.info("done here; %d shards of other hosts are missing", missing)
      return
    index, damaged, start = {"ids": [], "firsts": [], "shards": [], "sizes": []}, {}, 0
    for stem, table in zip(self.stems, tables, strict=True):
      contents = json.loads(table.read_text())
      index["ids"] += contents["ids"]
      index["firsts"] += [start + first for first in contents["firsts"]]
      file = stem.with_suffix(".array_record")
      index["shards"].append([file.name, contents["records"]])
      index["sizes"].append(file.stat().st_size)
      damaged |= contents["damaged"]
      start += contents["records"]
    for name, reason in list(damaged.items())[:_SHOWN]:
      logger.warning("damaged %s: %s", name, reason)
    if start == len(self.source):  # heads only
      shutil.rmtree(self.partial)
      name, reason = next(iter(damaged.items()))
      raise UserError(
        f"none of the {start} videos can be read, such as {name}: {reason}; when they "
        "can, run the same command again"
      )
    write_json(self.partial / "index.json", index)
    description = self.settings | {"damaged": damaged}
    write_json(self.partial / "description.json", description)
    os.replace(self.partial, self.target)
    for name in (*(table.name for table in tables), "settings.json"):
      (self.target / name).unlink()
    logger.info("motion of %d videos in %s", len(self.source), self.target)


def _finished(video: VideoMotion, bar) -> tuple[flow_files.Head, list[bytes]]:
  bar.update()
  damage = video.damage
  if damage:
    damage = f"{damage}; {video.taken} frames were used"
  strengths = np.array(video.strengths, np.float32)
  head = flow_files.Head(video.id, *video.size, strengths, damage)
  return head, [frame.result() for frame in video.frames]
