"""A video that one of several hosts cannot read counts for none, and shifts nothing."""

import concurrent.futures
import json
import shutil
import socket
import subprocess
import sys
import threading

import av
import children
import jax
import numpy as np
import pytest
import tiny
from test_config import CONFIGS, load

from motion_jax.data import open_source
from motion_jax.data.clips import Views
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.inputs import Sources
from motion_jax.evaluation.retrieval import Retrieval
from motion_jax.scale import cluster, hosts, sharding

CLASSES, VIDEOS = ("left", "right", "up"), 8
LOST = "right/3.mp4"
CLIPS = (3, 0)  # as many of every video; all of it, which depends on its length


def write_video(path, rng, label):
  """Noise of a colour of the class, of which no two videos have the same."""
  path.parent.mkdir(exist_ok=True)
  with av.open(path, "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
    colour = rng.integers(0, 120, 3) + np.eye(3, dtype=int)[label] * 60
    for _ in range(int(rng.integers(6, 30))):
      image = colour + rng.integers(0, 60, (48, 64, 3))
      frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  folder, rng = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
  for label, name in enumerate(CLASSES):
    for number in range(VIDEOS):
      write_video(folder / name / f"{number}.mp4", rng, label)
  return folder


def with_one_lost(videos, folder, how):
  shutil.copytree(videos, folder)
  if how == "damaged":
    (folder / LOST).write_bytes(b"no video")
  elif how == "removed":
    (folder / LOST).unlink()
  return folder


def scores(folder, address="", index=0):
  """Prints what an encoder is worth on a folder, by clips per video."""
  if address:
    cluster.join(address, 2, index)
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.method.size, config.method.frames, config.eval.batch_size = 32, 4, 8
  config.data.interval = 1
  options = {"heldout_fraction": 0.4}
  parts = (open_source(folder, split=s, **options) for s in ("train", "heldout"))
  sources, found = Sources(*parts), {}
  hosts.check_records((sources.train, sources.heldout))
  for clips in CLIPS:
    config.eval.clips = clips
    retrieval = Retrieval(tiny.Frozen(config), config, sources, sharding.make_mesh())
    found[clips] = retrieval(*tiny.Frozen.TRAINED)
  assert jax.device_count() == 2
  print(json.dumps(found))


def calling(folder, *arguments):
  values = ", ".join(map(repr, (str(folder), *arguments)))
  return [sys.executable, "-c", f"import test_unreadable as t; t.scores({values})"]


@pytest.mark.slow
def test_what_one_of_two_processes_cannot_read_counts_for_none(videos, tmp_path):
  folders = [with_one_lost(videos, tmp_path / how, how) for how in ("whole", "damaged")]
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  commands = [calling(folder, address, i) for i, folder in enumerate(folders)]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  with children.started(*commands, env=children.environment(1), **pipes) as processes:
    texts = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
  one, other = (json.loads(output.splitlines()[-1]) for output, _ in texts)
  assert one == other
  without = with_one_lost(videos, tmp_path / "removed", "removed")
  alone = children.run(calling(without), env=children.environment(2))
  assert alone.returncode == 0, alone.stderr
  expected = json.loads(alone.stdout.splitlines()[-1])
  for clips in map(str, CLIPS):
    assert one[clips].keys() == expected[clips].keys() >= {"eval/linear_top1"}
    assert one[clips] == pytest.approx(expected[clips], abs=1e-6)
  assert "1 of " in texts[0][1] and "do not count" in texts[0][1]


@pytest.mark.parametrize("views", CLIPS)
def test_all_hosts_have_the_same_rows(views, videos, tmp_path):
  folders = [with_one_lost(videos, tmp_path / how, how) for how in ("whole", "damaged")]
  sources = [open_source(folder, split="all") for folder in folders]
  sizes = dict(fps=0.0, short_side=32, canvas=(32, 32))
  meeting, asked = threading.Barrier(2, timeout=60), [None, None]

  def batches(host):
    def agree(counts):
      meeting.wait()
      asked[host] = counts
      meeting.wait()
      return np.where(asked[0] == asked[1], asked[0], 0)

    options = dict(batch_size=4, seed=0, threads=2 + 3 * host, agree=agree)
    views_of = Views(views, 4, 1, **sizes)
    return list(evaluation_batches(sources[host], views_of, **options))

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    rows = list(pool.map(batches, (0, 1)))
  lost = sources[0].ids.index(LOST)
  for one, other in zip(*rows, strict=True):
    for name in one.keys() - {"label", "reason"}:
      np.testing.assert_array_equal(one[name], other[name])
    assert not one["valid"][one["index"] == lost].any()
  index = np.concatenate([batch["index"] for batch in rows[0]])
  assert (index == lost).sum() == 1
  assert (
    views == 0 or (np.bincount(index[index >= 0]) == views).sum() == len(sources[0]) - 1
  )
