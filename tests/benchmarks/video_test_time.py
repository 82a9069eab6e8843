"""Compares the test over videos with a bare decode loop plus the forward passes.

The bare loop opens every held-out video with PyAV and converts all of its frames to
RGB, one thread per core; the forward passes are as many calls of the compiled
prediction as the test needs, on one batch that is already on the device.

  python tests/benchmarks/video_test_time.py --workdir=RUN [--rounds=3]

RUN is the folder of a run of configs/finetune.py.
"""

import concurrent.futures
import io
import os
import pathlib
import statistics
import tempfile
import time

import av
import jax
from absl import app, flags
from ml_collections import ConfigDict

from motion_jax.commands import command
from motion_jax.data import media
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.inputs import configured_sources, test_views
from motion_jax.evaluation.evaluators import make_evaluators
from motion_jax.methods import make_method
from motion_jax.scale import sharding
from motion_jax.training import runs
from motion_jax.training.checkpoint import Checkpoints

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "number of measurements of each")


def main(argv):
  del argv
  media.set_up_opencv()
  command.use_compilation_cache()
  command.keep_freed_memory()
  run, step = runs.locate(_WORKDIR.value)
  config = ConfigDict(Checkpoints(run).config(step))
  mesh, method = sharding.make_mesh(), make_method(config)
  weights = jax.jit(method.init)(jax.random.key(0))
  params, aux = Checkpoints(run).restore_weights(step, *weights)
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    sources = configured_sources(config.data)
    held_out, test = make_evaluators(method, config, sources, mesh, folder)
    _compare(config, mesh, held_out, test, (params, aux))


def _compare(config, mesh, held_out, test, weights):
  source = held_out.source
  batches = evaluation_batches(
    source, test_views(config), batch_size=config.eval.batch_size, seed=0
  )
  rows = sharding.shard_batch(mesh, next(batches))
  count = 1 + sum(1 for _ in batches)

  def forward():
    for _ in range(count):
      jax.block_until_ready(held_out.predict(*weights, rows))

  def decode():
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      list(pool.map(_decode, [source[i].media for i in range(len(source))]))

  jobs = {"test": lambda: test(*weights), "forward": forward, "decode": decode}
  times = {name: [] for name in jobs}
  for number in range(_ROUNDS.value + 1):  # the first round compiles
    for name, job in jobs.items():
      began = time.monotonic()
      job()
      if number:
        times[name].append(time.monotonic() - began)
  median = {name: statistics.median(values) for name, values in times.items()}
  ratio = median["test"] / (median["forward"] + median["decode"])
  print(f"{len(source)} videos, {count} batches of {config.eval.batch_size} views")
  print({name: round(value, 2) for name, value in median.items()})
  print(f"test / (decode + forward) = {ratio:.2f}")


def _decode(content):
  file = io.BytesIO(content) if isinstance(content, bytes) else str(content)
  with av.open(file) as container:
    for frame in container.decode(video=0):
      frame.to_ndarray(format="rgb24")


if __name__ == "__main__":
  app.run(main)
