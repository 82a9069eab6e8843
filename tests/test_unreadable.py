"""Hosts share an evaluation; what the one that decodes it cannot read is missing."""

import json
import pathlib
import shutil
import socket
import subprocess
import sys

import av
import children
import flax.struct
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from clu import metrics
from test_config import CONFIGS, load

from motion_jax.data import open_source
from motion_jax.data.clips import SourceFrame, Views
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.inputs import Sources, feature_views
from motion_jax.data.rows import Rows
from motion_jax.evaluation import parts
from motion_jax.evaluation.features import FeatureExtractor
from motion_jax.evaluation.held_out import HeldOut
from motion_jax.evaluation.online import Online
from motion_jax.evaluation.retrieval import Retrieval
from motion_jax.methods.base import Method
from motion_jax.scale import cluster, hosts, sharding

CLASSES, VIDEOS = ("left", "right", "up"), 8
ALL = len(CLASSES) * VIDEOS
# Both are decoded by process 1 of two, and each is damaged on one host alone.
LOST, ELSEWHERE = "right/3.mp4", "right/5.mp4"
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


def with_damage(videos, folder, name):
  shutil.copytree(videos, folder)
  (folder / name).write_bytes(b"no video")
  return folder


@flax.struct.dataclass
class Metrics(metrics.Collection):
  brightness: metrics.Average.from_output("brightness")
  contrast: metrics.Average.from_output("contrast")


class Brightness(Method):
  """Says how bright a picture is, and beside the others of its batch."""

  metrics = Metrics

  def sampler(self, split, source=None):
    return SourceFrame(32, (32, 48))

  def predict(self, params, aux, batch):
    mask = batch["valid"]
    bright = batch["image"].mean((1, 2, 3)) * mask
    mean = bright.sum() / jnp.maximum(mask.sum(), 1)
    return {"brightness": bright, "contrast": jnp.abs(bright - mean), "mask": mask}


def small():
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.method.size, config.method.frames, config.eval.batch_size = 32, 4, 8
  config.data.interval, config.eval.max_sources = 1, 0
  return config


def count_decoded():
  """Returns a list that gets the position of every record from now on."""
  decoded, parts_of = [], Rows.parts

  def counted(self, index, rng):
    decoded.append(index)
    return parts_of(self, index, rng)

  Rows.parts = counted
  return decoded


def features(source, clips, folder, stop_after=None):
  """(positions, features) of a source, kept in parts at once, or interrupted."""
  config = small()
  config.eval.clips = clips
  module = tiny.Frozen(config).encoder(*tiny.Frozen.TRAINED)
  extractor = FeatureExtractor(module, config, sharding.make_mesh(), 8)
  kept = parts.Parts(folder, "features", config, tiny.Frozen.TRAINED, source)
  if stop_after:
    encode, calls = extractor._encode, []

    def encode_few(*args):
      calls.append(args)
      if len(calls) > stop_after:
        raise KeyboardInterrupt
      return encode(*args)

    extractor._encode = encode_few
  (found,) = extractor([module], source, feature_views(config), parts=kept)
  return found.positions, found.features


def measure(folder, workdir, address="", index=0):
  """Evaluates a folder; prints what was found, and who decoded what."""
  if address:
    cluster.join(address, 2, index)
  hosts._GATHERED = 1000  # of which the features need several
  parts._SECONDS = 0.0
  folder, workdir = pathlib.Path(folder), pathlib.Path(workdir)
  decoded, found = count_decoded(), {}
  source = open_source(folder, split="all")
  hosts.check_records((source,))
  for clips in CLIPS:
    del decoded[:]
    positions, values = features(source, clips, workdir / "finished")
    found[f"features{clips}"] = [positions.tolist(), values.tolist(), sorted(decoded)]
  del decoded[:]
  config, mesh = small(), sharding.make_mesh()
  held_out = HeldOut(source, Brightness(config), config, mesh, workdir / f"bad{index}")
  found["metrics"] = [held_out({}, {}), sorted(decoded)]
  halves = Sources(
    *(open_source(folder, split=s, heldout_fraction=0.4) for s in ("train", "test"))
  )
  config.eval.update(clips=CLIPS[0], linear=False, online_videos=16)
  retrieval = Retrieval(tiny.Frozen(config), config, halves, mesh, workdir)
  online = Online(tiny.Frozen(config), config, halves, mesh, workdir, like=retrieval)
  found["retrieval"], found["online"] = (
    evaluator(*tiny.Frozen.TRAINED) for evaluator in (retrieval, online)
  )
  if address:
    with pytest.raises(KeyboardInterrupt):
      features(source, 0, workdir / "interrupted", stop_after=8)
  return found


def calling(*arguments):
  values = ", ".join(repr(str(x)) for x in arguments[:-1])
  call = f"print(json.dumps(t.measure({values}, {arguments[-1]})))"
  return [sys.executable, "-c", f"import json, test_unreadable as t; {call}"]


@pytest.mark.slow
def test_two_hosts_decode_half_each_and_find_the_same(videos, tmp_path, monkeypatch):
  for owner, name in ((hosts, "_GATHERED"), (parts, "_SECONDS"), (Rows, "parts")):
    monkeypatch.setattr(owner, name, getattr(owner, name))  # `measure` sets them
  damaged = [(tmp_path / "zero", ELSEWHERE), (tmp_path / "one", LOST)]
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  shared = tmp_path / "shared"
  commands = [
    calling(with_damage(videos, *folder), shared, address, index)
    for index, folder in enumerate(damaged)
  ]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  shared.mkdir()
  with children.started(*commands, env=children.environment(1), **pipes) as processes:
    (tmp_path / "alone").mkdir()
    expected = measure(videos, tmp_path / "alone")
    texts = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
  one, other = (json.loads(output.splitlines()[-1]) for output, _ in texts)
  source = open_source(videos, split="all")
  lost = source.ids.index(LOST)
  assert source.ids.index(ELSEWHERE) % 2 == lost % 2 == 1

  for clips in CLIPS:  # what only another host cannot read is there
    name = f"features{clips}"
    positions, values, decoded = expected[name]
    assert decoded == positions == [*range(ALL)]
    rows = [each for each in positions if each != lost]
    assert one[name][:2] == other[name][:2]
    assert one[name][0] == rows
    np.testing.assert_allclose(one[name][1], np.asarray(values)[rows], atol=1e-6)
    assert one[name][2] == [*range(0, ALL, 2)]
    assert other[name][2] == [*range(1, ALL, 2)]

  # Batches of eight pictures, of which each host decodes four.
  shares = one["metrics"][1], other["metrics"][1]
  assert shares[0] == [x for x in range(ALL) if x % 8 < 4]
  assert sorted(shares[0] + shares[1]) == expected["metrics"][1] == [*range(ALL)]
  assert one["metrics"][0] == other["metrics"][0]
  assert one["metrics"][0] == pytest.approx(expected["metrics"][0], rel=1e-5)
  assert one["metrics"][0]["eval/contrast"] > 1

  for name in ("retrieval", "online"):
    assert one[name] == other[name]
    assert one[name].keys() == expected[name].keys()

  # One process goes on where two were interrupted, with what they have left alone.
  decoded, zero = count_decoded(), damaged[0][0]
  shutil.copy(videos / ELSEWHERE, zero / ELSEWHERE)
  source = open_source(zero, split="all")
  positions, values = features(source, 0, shared / "interrupted")
  assert 0 < len(decoded) < 0.8 * ALL and lost in decoded
  assert positions.tolist() == [*range(ALL)]
  np.testing.assert_allclose(values, expected["features0"][1], atol=1e-6)


@pytest.mark.parametrize("hosts_", [1, 2, 3, 5])
@pytest.mark.parametrize("views", [None, *CLIPS])
def test_every_record_is_a_row_of_one_host(views, hosts_, videos):
  """Batches of seven of ten chosen records, filled up for ten devices."""
  source, records = open_source(videos, split="all"), np.arange(3, 23, 2)
  sampler = SourceFrame(32, (32, 48))
  if views is not None:
    sampler = Views(views, 4, 1, fps=0.0, short_side=32, canvas=(32, 32))
  devices = 10 * hosts_
  batches = [
    [
      *evaluation_batches(
        source,
        sampler,
        batch_size=7,
        seed=0,
        records=records,
        multiple=devices,
        threads=2,
        process_index=host,
        process_count=hosts_,
      )
    ]
    for host in range(hosts_)
  ]
  for own in batches:
    assert {len(batch["index"]) for batch in own} <= {10}
  index = [[batch["index"].tolist() for batch in own] for own in batches]
  if views is None:  # each global batch has the same records on any number of hosts
    for number, expected in enumerate((records[:7], records[7:])):
      joined = [x for own in index for x in own[number] if x >= 0]
      assert joined == expected.tolist()
    return
  seen = [{x for batch in own for x in batch if x >= 0} for own in index]
  assert sorted(x for own in seen for x in own) == records.tolist()
  assert max(map(len, seen)) <= -(-len(records) // hosts_)


def test_a_limit_takes_the_same_records_whatever_their_order(videos, tmp_path):
  source = open_source(videos, split="all")

  def chosen(limit, seed):
    config = small()
    config.eval.max_sources, config.seed = limit, seed
    config.eval.batch_size = limit
    mesh, bad_files = sharding.make_mesh(), tmp_path / "bad_files.txt"
    held_out = HeldOut(source, Brightness(config), config, mesh, bad_files)
    assert len(held_out) == limit
    index = held_out.examples()["index"]
    return index[index >= 0].tolist()

  few, again, more = chosen(8, 1), chosen(8, 2), chosen(12, 1)
  assert few == again == sorted(few)
  assert len({*few}) == 8 and {*few} < {*more}
  assert len({*np.diff(more)}) > 1  # classes that take turns are all there
