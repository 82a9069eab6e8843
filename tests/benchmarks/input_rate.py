"""Compares the input pipeline with bare PyAV loops on the same cores.

Both decode one random frame of each video of a folder, in the same number of threads,
for the same time, one after the other, several times. The bare loop opens the file,
seeks, decodes up to the frame and converts it to RGB; with --resize it also does the
pipeline's resize, cut and batching, in the plainest way.

  python tests/benchmarks/input_rate.py --path=FOLDER [--threads=2] [--short_side=128]
"""

import random
import statistics
import threading
import time

import av
import cv2
import numpy as np
from absl import app, flags

from motion_jax.costs.measures import pipeline_rate
from motion_jax.data import media, open_source
from motion_jax.data.clips import SourceFrame

_PATH = flags.DEFINE_string("path", None, "folder of videos", required=True)
_THREADS = flags.DEFINE_integer("threads", 2, "decoding threads")
_SECONDS = flags.DEFINE_float("seconds", 5, "length of one measurement")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "number of measurements of each")
_SHORT_SIDE = flags.DEFINE_integer("short_side", 128, "of the pipeline's frames")
_RESIZE = flags.DEFINE_bool("resize", False, "resize in the bare loop, too")


def main(argv):
  del argv
  media.set_up_opencv()
  source = open_source(_PATH.value, split="all")
  short = _SHORT_SIDE.value
  sampler = SourceFrame(short, (short, short * 4 // 3 + 1))
  paths = [str(source[i].media) for i in range(len(source))]
  bare, ours = [], []
  options = dict(seconds=_SECONDS.value, threads=_THREADS.value)
  for _ in range(_ROUNDS.value):
    bare.append(_measured(lambda: _bare_rate(paths)))
    ours.append(_measured(lambda: pipeline_rate(source, sampler, 8, **options)))
    for name, (rate, cost) in (("bare", bare[-1]), ("pipeline", ours[-1])):
      print(f"{name} {rate:7.1f}/s ({cost:.2f} ms CPU)  ", end="", flush=True)
    print()
  for what, column in (("frames/s", 0), ("frames per CPU second", 1)):
    values = [
      [row[column] if column == 0 else 1e3 / row[column] for row in rows]
      for rows in (bare, ours)
    ]
    ratio = statistics.median(o / b for b, o in zip(*values, strict=True))
    medians = [statistics.median(v) for v in values]
    print(
      f"{what}: median bare {medians[0]:.1f}, pipeline {medians[1]:.1f}, "
      f"paired ratio {ratio:.3f}"
    )


def _measured(run) -> tuple[float, float]:
  """Returns frames per second, and milliseconds of processor time per frame.

  The second one holds on a machine that is busy with other things, too.
  """
  start, cpu = time.perf_counter(), time.process_time()
  rate = run()
  frames = rate * (time.perf_counter() - start)
  return rate, (time.process_time() - cpu) / frames * 1e3


def _bare_rate(paths: list[str]) -> float:
  """Runs bare decode loops in threads; returns frames per second."""
  counts = [0] * _THREADS.value
  stop = time.perf_counter() + _SECONDS.value

  def loop(number: int) -> None:
    rng = random.Random(number)
    while time.perf_counter() < stop:
      _bare(rng.choice(paths), rng)
      counts[number] += 1

  start = time.perf_counter()
  threads = [threading.Thread(target=loop, args=(n,)) for n in range(_THREADS.value)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return sum(counts) / (time.perf_counter() - start)


def _bare(path: str, rng: random.Random) -> np.ndarray:
  """Decodes one random frame, as one would with PyAV alone."""
  with av.open(path) as container:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    number = rng.randrange(stream.frames)
    wanted = stream.start_time + round(number / stream.average_rate / stream.time_base)
    container.seek(wanted, stream=stream)
    for frame in container.decode(stream):
      if frame.pts >= wanted:
        return _resized(frame.to_ndarray(format="rgb24"))
  raise RuntimeError(f"{path}: no frame {number}")


def _resized(image: np.ndarray) -> np.ndarray:
  if not _RESIZE.value:
    return image
  short = _SHORT_SIDE.value
  scale = short / min(image.shape[:2])
  size = (int(scale * image.shape[1]), int(scale * image.shape[0]))
  image = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
  out = np.zeros((short, short * 4 // 3 + 1, 3), np.uint8)
  image = image[: out.shape[0], : out.shape[1]]
  out[: image.shape[0], : image.shape[1]] = image.astype(np.uint8)
  return out


if __name__ == "__main__":
  app.run(main)
