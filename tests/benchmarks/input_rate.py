"""Compares the input pipeline of a recipe with bare PyAV loops on the same cores.

Both take what the recipe takes of random records, for the same time, one after the
other, several times: the pipeline in `--threads` threads, or `--workers` processes of
as many; the bare loops in as many threads, or processes of one thread. A bare loop has
the videos in memory; it opens one, seeks to the start of each clip, decodes up to its
end, makes RGB images of the clip's frames and, of MoDist, decodes stored edges. It does
no more: no resizing, no canvas, no batch.

  python tests/benchmarks/input_rate.py --config=configs/mosi.py:ucf101
    [--config.data.data_dir=FOLDER] [--batch_size=160] [--threads=4] [--workers=0]
"""

import io
import multiprocessing
import random
import statistics
import threading
import time
from fractions import Fraction

import av
from absl import app, flags
from ml_collections import config_flags

from motion_jax.costs.feed import pipeline_rate
from motion_jax.data import flow_files, media
from motion_jax.data.inputs import configured_source
from motion_jax.data.rows import empty_row
from motion_jax.methods import make_method

_CONFIG = config_flags.DEFINE_config_file("config", None, "recipe")
_THREADS = flags.DEFINE_integer("threads", 4, "decoding threads, in each process")
_WORKERS = flags.DEFINE_integer("workers", 0, "processes; 0: threads of this one")
_BATCH = flags.DEFINE_integer("batch_size", 0, "0: the recipe's")
_SECONDS = flags.DEFINE_float("seconds", 10, "length of one measurement")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "number of measurements of each")
_VIDEOS = 64  # that the bare loops have in memory


def main(argv):
  del argv
  media.set_up_opencv()
  config = _CONFIG.value
  batch = _BATCH.value or config.train.batch_size
  source = configured_source(config.data, "train")
  sampler = make_method(config).sampler("train", source)
  size = sum(array.nbytes for array in empty_row(sampler).values())
  print(f"{config.name}: {size / 1e6:.2f} MB per example, batches of {batch}")
  chosen = random.Random(0).sample(range(len(source)), min(_VIDEOS, len(source)))
  tasks = [_task(source[index], sampler) for index in chosen]
  options = dict(seconds=_SECONDS.value, threads=_THREADS.value, workers=_WORKERS.value)
  rows = []
  for _ in range(_ROUNDS.value):
    bare = _measured(lambda: _bare_rate(tasks))
    rate, used = pipeline_rate(source, sampler, batch, **options)
    rows.append((*bare, rate, 1e3 * used))
    print("bare {:.1f}/s {:.2f} ms CPU, pipeline {:.1f}/s {:.2f} ms".format(*rows[-1]))
  bare, bare_cpu, ours, cpu = map(statistics.median, zip(*rows, strict=True))
  ratio = statistics.median(row[2] / row[0] for row in rows)
  print(f"median {bare:.1f} and {ours:.1f} examples/s, paired ratio {ratio:.3f}")
  if not _WORKERS.value:
    ratio = statistics.median(row[1] / row[3] for row in rows)
    print(f"median {bare_cpu:.2f} and {cpu:.2f} ms CPU each, paired ratio {ratio:.3f}")


def _measured(run) -> tuple[float, float]:
  """Returns examples per second, and milliseconds of processor time for each.

  The second one, of this process alone, holds on a machine that is busy otherwise.
  """
  start, cpu = time.perf_counter(), time.process_time()
  rate = run()
  count = rate * (time.perf_counter() - start)
  return rate, (time.process_time() - cpu) / count * 1e3


def _task(record, sampler) -> tuple:
  """What a bare loop does for a record: video, clips, frames, pace, and edges."""
  frames = getattr(sampler, "frames", 1)
  fps = getattr(sampler, "fps", 0)
  step = getattr(sampler, "interval", 1) * (record.fps / fps if fps else 1)
  flow, edges = getattr(sampler, "flow", None), []
  if flow is not None and hasattr(sampler, "motion_frames"):
    head = flow.head(record.id)
    for frame in flow.frames(head, range(min(32, head.num_frames))):
      edges.append(flow_files.encode_frame(frame))
  clips = len(sampler.empty()["extent"].reshape(-1, 2))
  return record.media, clips, frames, step, edges


def _bare_rate(tasks: list[tuple]) -> float:
  """Runs bare loops in threads or processes; returns examples per second."""
  if not _WORKERS.value:
    counts = _in_threads(tasks, _THREADS.value, _SECONDS.value)
    return counts / _SECONDS.value
  context = multiprocessing.get_context("spawn")
  with context.Pool(_WORKERS.value) as pool:
    pool.map(_warm, range(_WORKERS.value))
    work = [(tasks, 1, _SECONDS.value)] * _WORKERS.value
    return sum(pool.starmap(_in_threads, work)) / _SECONDS.value


def _warm(number):
  time.sleep(0.5)


def _in_threads(tasks, threads: int, seconds: float) -> int:
  counts = [0] * threads
  stop = time.perf_counter() + seconds

  def loop(number: int) -> None:
    rng = random.Random()
    while time.perf_counter() < stop:
      _bare(*rng.choice(tasks), rng)
      counts[number] += 1

  running = [threading.Thread(target=loop, args=(n,)) for n in range(threads)]
  for thread in running:
    thread.start()
  for thread in running:
    thread.join()
  return sum(counts)


def _bare(video, clips, frames, step, edges, rng) -> list:
  """Decodes random clips of a video, as one would with PyAV alone."""
  found = [flow_files.decode_frame(data, 1) for data in edges]
  with av.open(io.BytesIO(video)) as container:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    pace = Fraction(1) / stream.average_rate / stream.time_base
    for _ in range(clips):
      first = rng.random() * max(1, stream.frames - frames * step)
      numbers = [int(first + step * n) for n in range(frames)]
      wanted = {min(number, stream.frames - 1) for number in numbers}
      times = {stream.start_time + round(number * pace) for number in wanted}
      container.seek(min(times), stream=stream)
      for frame in container.decode(stream):
        if frame.pts in times:
          found.append(frame.to_ndarray(format="rgb24"))
          if frame.pts == max(times):
            break
  return found


if __name__ == "__main__":
  app.run(main)
