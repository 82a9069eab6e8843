"""Small videos and motion sets for the tests, without computing any flow."""

import json
import pathlib

import cv2
import jax.numpy as jnp
import media_files
import numpy as np

from motion_jax.data import disk, flow_files, motion_codec, open_source
from motion_jax.data.flow_records import FlowRecords, open_flow
from motion_jax.flow_sets import batches, prepare_flow

KIND = {"method": "variational", "store": "edges", "interval": 5}
COUNTS = {"a.mp4": 9, "b.mp4": 13, "large.mp4": 5, "take": 7}


def difference(first, second):
  """Stands in for a flow: tells exactly which frames were paired, and compiles fast."""
  change = (first.astype(jnp.float32) - second)[..., :1]
  return jnp.concatenate([change / 8, -change / 16], -1)


def stand_in(weights, solver):
  """As the values of `batches.FLOWS`."""
  return lambda parameters, first, second: difference(first, second), ()


def write_videos(folder: pathlib.Path, monkeypatch) -> pathlib.Path:
  """A folder of videos of two sizes and a folder of frames; a stand-in for the flow."""
  monkeypatch.setitem(batches.FLOWS, "variational", stand_in)
  (folder / "take").mkdir(parents=True)
  for name, count in COUNTS.items():
    size = (96, 160) if name == "large.mp4" else (48, 90)
    if name.endswith(".mp4"):
      media_files.write_video(folder / name, count, size=size)
  for number in range(COUNTS["take"]):
    picture = media_files.picture(number, 48, 90)
    cv2.imwrite(str(folder / f"take/{number}.png"), picture)
  return folder


def prepare(folder: pathlib.Path, **options) -> pathlib.Path:
  """Prepares the motion of a folder, by default in the folder `data` beside it."""
  options = {"method": "variational", "short_side": 48, "batch_size": 4} | options
  options.setdefault("data_dir", str(folder.parent / "data"))
  return prepare_flow.prepare_flow(str(folder), **options)


def reopen(folder: pathlib.Path, **kind):
  """(source, motion) of such a folder."""
  source = open_source(folder, split="all")
  data_dir = str(folder.parent / "data")
  return source, open_flow(source, **KIND | kind, data_dir=data_dir)


def number_frames(count, size=(24, 48)):
  """[count, H, W, 1] motion whose gray level is 6 times the frame's number."""
  levels = 6 * np.arange(count, dtype=np.uint8)
  return np.broadcast_to(levels[:, None, None, None], (count, *size, 1))


def write_set(
  folder: pathlib.Path, videos: dict, *, store="edges", damage=None
) -> FlowRecords:
  """Writes {id: (frames [N, H, W, C] uint8, strengths [N])} as two shards."""
  folder.mkdir(parents=True)
  index = {"ids": [], "firsts": [], "shards": []}
  ids = [*videos]
  start = 0
  for number, part in enumerate((ids[:1], ids[1:])):
    rows = []
    for name in part:
      frames, strengths = videos[name]
      size = frames.shape[1:3]
      about = (name, *size, np.asarray(strengths, np.float32), (damage or {}).get(name))
      head = flow_files.Head(*about[:4], about[4] or "")
      rows.append((head, [*map(flow_files.encode_frame, frames)]))
    stem = folder / f"flow-{number}"
    flow_files.write_shard(stem, rows)
    table = json.loads(stem.with_suffix(".json").read_text())
    index["ids"] += table["ids"]
    index["firsts"] += [start + first for first in table["firsts"]]
    index["shards"].append([f"{stem.name}.array_record", table["records"]])
    start += table["records"]
  disk.write_json(folder / "index.json", index)
  limit = motion_codec.LIMITS[store]
  description = {"version": flow_files.VERSION, "store": store, "limit": limit}
  disk.write_json(folder / "description.json", description)
  return FlowRecords(folder)
