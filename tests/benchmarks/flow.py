"""Our flow beside OpenCV's: end-point error and time at full size.

    python tests/benchmarks/flow.py FIRST SECOND TRUTH.flo [--rounds=5] [--threads=2]
      [--raft=FILE]

FILE holds RAFT's weights, as the authors publish them; without it, of ours only the
variational flow is measured. TRUTH.flo is in Middlebury's format. Farneback's
parameters and DIS's preset are those of tests/test_flow.py. All work in turn, so that
other load hits them alike; DIS and Farneback on one pair, ours on a batch of `--batch`,
whose time is divided by it. Prints JSON: mean end-point error in pixels where the truth
is known, median milliseconds per pair, and times relative to Farneback's, medians of
the ratios of the rounds.
"""

import argparse
import json
import os
import statistics
import time

import cv2
import numpy as np


def main():
  parser = argparse.ArgumentParser()
  for name in ("first", "second", "truth"):
    parser.add_argument(name)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--batch", type=int, default=1)
  parser.add_argument("--raft", default="", help="file of RAFT's weights")
  parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
  options = parser.parse_args()
  cv2.setNumThreads(options.threads)
  frames = [cv2.imread(path) for path in (options.first, options.second)]
  truth = read_flow(options.truth)
  known = (np.abs(truth) < 1e9).all(-1)
  methods = {
    "farneback": farneback,
    "dis": cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc,
  }
  gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
  runs = {
    name: lambda method=method: method(*gray, None) for name, method in methods.items()
  }
  pair = [np.repeat(frame[None, ..., ::-1], options.batch, 0) for frame in frames]
  ours = {"variational": variational(pair)}
  if options.raft:
    ours["raft"] = raft(pair, options.raft)
  runs |= ours
  found = {name: run() for name, run in runs.items()}  # compiles
  found["zero"] = np.zeros_like(truth)
  seconds = {name: [] for name in runs}
  for _ in range(options.rounds):
    for name, run in runs.items():
      began = time.perf_counter()
      run()
      seconds[name].append(time.perf_counter() - began)
  for name in ours:
    seconds[name] = [one / options.batch for one in seconds[name]]
  ratios = {
    name: [one / two for one, two in zip(times, seconds["farneback"], strict=True)]
    for name, times in seconds.items()
  }
  errors = {
    name: float(np.linalg.norm(flow - truth, axis=-1)[known].mean())
    for name, flow in found.items()
  }
  result = {
    "size": list(truth.shape[:2]),
    "threads": options.threads,
    "end_point_error": errors,
    "milliseconds": {n: 1e3 * statistics.median(s) for n, s in seconds.items()},
    "times_farneback": {n: statistics.median(r) for n, r in ratios.items()},
  }
  print(json.dumps(result, indent=2))


def farneback(first, second, flow):
  return cv2.calcOpticalFlowFarneback(first, second, flow, 0.5, 5, 11, 3, 5, 1.1, 0)


def variational(pair):
  """A function that computes the flow of a batch of RGB pairs: of the first of them."""
  from motion_jax.ops.flow import variational_flow  # reads XLA's settings

  return lambda: np.asarray(variational_flow(*pair))[0]


def raft(pair, path):
  """As `variational`."""
  from motion_jax.models.raft import raft_flow
  from motion_jax.models.raft_weights import load_raft

  network = load_raft(path)
  return lambda: np.asarray(raft_flow(network, *pair))[0]


def read_flow(path):
  """[H, W, 2] float32 of a .flo file."""
  data = np.fromfile(path, np.uint8).tobytes()
  width, height = np.frombuffer(data, "<i4", 2, 4)
  return np.frombuffer(data, "<f4", -1, 12).reshape(height, width, 2)


if __name__ == "__main__":
  main()
