"""Small prepared motion sets for the tests, written without computing any flow."""

import json
import pathlib

import numpy as np

from motion_jax.data import flow_files
from motion_jax.data.flow_records import FlowRecords


def number_frames(count, size=(24, 48)):
  """[count, H, W, 1] motion whose gray level is 6 times the frame's number."""
  levels = 6 * np.arange(count, dtype=np.uint8)
  return np.broadcast_to(levels[:, None, None, None], (count, *size, 1))


def write_set(folder: pathlib.Path, videos: dict, *, damage=None) -> FlowRecords:
  """Writes {id: (frames [N, H, W, C] uint8, strengths [N])} as two shards of edges."""
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
  flow_files.write_json(folder / "index.json", index)
  description = {"version": flow_files.VERSION, "store": "edges", "limit": 10.0}
  flow_files.write_json(folder / "description.json", description)
  return FlowRecords(folder)
