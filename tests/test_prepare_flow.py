"""Motion sets: what is in them, stopped and repeated, made by several hosts."""

import concurrent.futures
import json
import re

import cv2
import flow_sets
import jax
import media_files
import numpy as np
import pytest

from motion_jax.config import UserError
from motion_jax.data import flow_files, motion_codec, open_source
from motion_jax.data.media import whole_video
from motion_jax.flow_sets import batches, job
from motion_jax.flow_sets.encoder import Encoder
from motion_jax.ops import flow_edges


@pytest.fixture
def videos(tmp_path, monkeypatch):
  return flow_sets.write_videos(tmp_path / "videos", monkeypatch)


def _expected(folder, name, short_side=48):
  """The stand-in's flow of every frame of a video."""
  source = open_source(folder, split="all")
  record = next(source[i] for i in range(len(source)) if source.id_of(i) == name)
  frames = np.stack([*whole_video(record, short_side)])
  earlier = frames[np.maximum(np.arange(len(frames)) - 5, 0)]
  return np.asarray(jax.jit(flow_sets.difference)(frames, earlier))


@pytest.mark.parametrize("store", ["edges", "flow"])
def test_every_frame_has_the_motion_to_five_frames_earlier(videos, store, caplog):
  with caplog.at_level("INFO"):
    path = flow_sets.prepare(videos, store=store)
  assert f"kB per frame; JPEG changes the {store} by 0.0" in caplog.text
  source, flow = flow_sets.reopen(videos, store=store)
  assert flow.path == path and len(flow) == len(source) == 4
  for name, count in flow_sets.COUNTS.items():
    head = flow.head(name)
    expected = _expected(videos, name)
    size = (48, 80) if name == "large.mp4" else (48, 90)
    assert (head.num_frames, head.height, head.width) == (count, *size)
    assert expected.shape == (count, *size, 2) and head.damage == ""
    edges = jax.jit(flow_edges.flow_edges)(expected)
    np.testing.assert_allclose(
      head.strengths, edges.mean((1, 2)) / 10, rtol=1e-4, atol=1e-6
    )
    stored = np.stack(flow.frames(head, range(count))).astype(float)
    if store == "edges":
      error = stored[..., 0] / 25.5 - np.asarray(edges)
    else:
      error = (stored - 128) * (20 / 127) - expected.clip(-20, 20)
    assert np.abs(error).mean() < 0.03 and np.abs(error[0]).max() < 0.1
    assert np.abs(error).max() < (0.5 if store == "edges" else 1)
    assert np.abs(expected).max() > 10  # of at most 20
  description = json.loads((path / "description.json").read_text())
  found = [description[key] for key in ("videos", "short_side", "weights", "limit")]
  assert found == [4, 48, "", motion_codec.LIMITS[store]]
  assert sorted(p.suffix for p in path.iterdir()) == [
    ".array_record",
    ".json",
    ".json",
  ]


def test_the_edges_of_objects_survive_and_what_is_lost_is_told():
  """Objects that move by up to 8 pixels over a background that turns slowly."""
  rng, (height, width) = np.random.default_rng(0), (128, 170)
  y, x = np.mgrid[:height, :width].astype(np.float32)
  frames = []
  for _ in range(26):
    flow = np.stack([(y - 64) / 80, (85 - x) / 80], -1)
    for _ in range(4):
      top, left, size = rng.uniform((0, 0, 8), (height, width, 30))
      inside = (y - top) ** 2 + ((x - left) / 1.5) ** 2 < size**2
      flow[inside] = rng.uniform(-8, 8, 2)
    flow = cv2.GaussianBlur(flow, (0, 0), 1)  # as estimated flow is
    frames.append(flow_edges.flow_edges(flow))
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    encoder = Encoder(pool, "edges")
    assert encoder.summary() == ""
    done = [
      encoder(np.asarray(motion_codec.encode(e, "edges"))[..., None]) for e in frames
    ]
  decoded = [flow_files.decode_frame(one.result(), 1)[..., 0] / 25.5 for one in done]
  error = np.abs(np.array(decoded) - np.array(frames))
  assert error.mean() < 0.03 and error.max() < 0.5
  told = encoder.summary()
  found = re.match(r"(.*) kB per frame.* by (.*) on av.* and (.*) at most, of 10", told)
  size, mean, largest = map(float, found.groups())
  assert size == pytest.approx(np.mean([len(d.result()) for d in done]) / 1e3, rel=0.3)
  assert mean == pytest.approx(error.mean(), abs=0.02) and 0.1 < largest < 0.5


def test_stopped_work_goes_on_where_it_was(videos, monkeypatch):
  monkeypatch.setattr(job, "_SHARD", 2)
  written, write = [], flow_files.write_shard

  def write_once(path, rows):
    if len(written) == 1:
      next(iter(rows))
      raise KeyboardInterrupt
    written.append(path.name)
    write(path, rows)

  monkeypatch.setattr(flow_files, "write_shard", write_once)
  with pytest.raises(KeyboardInterrupt):
    flow_sets.prepare(videos)
  with pytest.raises(UserError, match=r"1 shards are done(.|\n)*prepare flow --data"):
    flow_sets.reopen(videos)
  with pytest.raises(UserError, match="short_side=48, not with short_side=32"):
    flow_sets.prepare(videos, short_side=32)
  written.append("second")
  flow_sets.prepare(videos)
  assert written == ["flow-00000-of-00002", "second", "flow-00001-of-00002"]
  _, flow = flow_sets.reopen(videos)
  assert [flow.head(name).num_frames for name in flow_sets.COUNTS] == [
    *flow_sets.COUNTS.values()
  ]
  assert [p.name for p in flow.path.parent.iterdir() if p.name != ".lock"] == [
    flow.path.name
  ]
  monkeypatch.setattr(flow_files, "write_shard", None)  # nothing is written again
  assert flow_sets.prepare(videos) == flow.path


def test_a_failing_disk_leaves_no_set_behind(videos, monkeypatch):
  packed = []

  def pack(head, frames):
    packed.append(head)
    if len(packed) == 3:
      raise OSError(28, "No space left on device")
    yield b"x"

  with monkeypatch.context() as patch:
    patch.setattr(flow_files, "pack", pack)
    with pytest.raises(OSError, match="No space"):
      flow_sets.prepare(videos)
  with pytest.raises(UserError, match="0 shards are done"):
    flow_sets.reopen(videos)
  flow_sets.prepare(videos)
  assert len(flow_sets.reopen(videos)[1]) == 4


def test_hosts_share_the_work_and_make_the_same_set(videos, monkeypatch):
  monkeypatch.setattr(job, "_SHARD", 1)
  alone = flow_sets.prepare(videos)
  shared = {"data_dir": str(videos.parent / "shared"), "process_count": 2}
  path = flow_sets.prepare(videos, process_index=1, **shared)
  assert not path.exists()
  done = sorted(p.name for p in path.parent.glob(".*.partial/*.array_record"))
  assert done == [f"flow-0000{i}-of-00004.array_record" for i in (1, 3)]
  assert flow_sets.prepare(videos, process_index=0, **shared) == path
  assert path.is_dir()
  for file in alone.iterdir():
    assert file.read_bytes() == (path / file.name).read_bytes()
  assert flow_sets.prepare(videos, process_index=1, **shared) == path


def test_damaged_videos_are_noted_and_the_others_used(videos, caplog):
  (videos / "a.mp4").write_bytes(b"no video")
  cut = videos / "b.mp4"
  media_files.write_video(cut, 40, options={"movflags": "faststart"})
  cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * 0.7)])
  with caplog.at_level("WARNING"):
    flow_sets.prepare(videos)
  assert "damaged a.mp4: Invalid data" in caplog.text
  _, flow = flow_sets.reopen(videos)
  assert flow.head("a.mp4").num_frames == 0
  head = flow.head("b.mp4")
  assert 3 < head.num_frames < 40 and f"{head.num_frames} frames were" in head.damage
  assert set(flow.description["damaged"]) == {"a.mp4", "b.mp4"}


def test_videos_that_all_fail_are_an_error_until_they_are_mended(tmp_path, monkeypatch):
  monkeypatch.setitem(batches.FLOWS, "variational", flow_sets.stand_in)
  folder = tmp_path / "videos"
  folder.mkdir()
  (folder / "a.mp4").write_bytes(b"no video")
  with pytest.raises(UserError, match="none of the 1 videos can be read, such as a"):
    flow_sets.prepare(folder)
  media_files.write_video(folder / "a.mp4", 9, size=(48, 90))
  flow_sets.prepare(folder)
  assert flow_sets.reopen(folder)[1].head("a.mp4").num_frames == 9


@pytest.mark.slow
def test_edges_of_the_flow_lie_on_a_moving_object(tmp_path):
  folder, count, side = tmp_path / "videos" / "take", 8, 24
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  behind, object_ = (
    cv2.resize(rng.integers(0, 256, (n, n, 3), np.uint8), (s, s))
    for n, s in ((20, 64), (8, side))
  )
  for t in range(count):
    picture = behind.copy()
    picture[20 : 20 + side, 8 + 2 * t : 8 + 2 * t + side] = object_
    cv2.imwrite(str(folder / f"{t}.png"), picture)
  flow_sets.prepare(folder.parent, short_side=64)
  _, flow = flow_sets.reopen(folder.parent)
  head = flow.head("take")
  assert head.strengths[0] < 0.005 < 0.02 < head.strengths[7]
  (edges,) = (frame[..., 0].astype(float) for frame in flow.frames(head, [7]))
  y, x = np.mgrid[:64, :64]
  inside = (abs(y - 32) < side / 2 + 6) & (abs(x - 34) < side / 2 + 14)
  assert edges[inside].sum() > 0.8 * edges.sum()
