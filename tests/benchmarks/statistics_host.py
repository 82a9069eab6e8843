"""Times the labels of MAS on the device beside NumPy and OpenCV on one host core.

    python tests/benchmarks/statistics_host.py --clips=30 --rounds=5

Two host versions: 'plain' loops over frames, regions, channels and, for the votes of
directions, over pixels, as the released code does; 'opencv' does the same with as few
calls as OpenCV allows. All sides work in turn, so that other load hits them alike; the
host versions take `--host_clips` clips and are scaled up. Prints JSON: median seconds
for the batch and the ratios.
"""

import argparse
import json
import os
import statistics
import time

import cv2
import jax
import numpy as np

from motion_jax.ops import appearance_statistics, motion_statistics, partition

SIZE, FRAMES = 112, 16


def boundaries(flow):
  """Derivatives summed over time and per frame, of [T, H, W]."""
  kernel = np.tile(np.array([1, 0, -1], np.float32), (3, 1))  # convolution: flipped
  border = dict(borderType=cv2.BORDER_REFLECT)
  pairs = [
    [cv2.filter2D(np.ascontiguousarray(f), -1, k, **border) for k in (kernel, kernel.T)]
    for f in flow
  ]
  frames = [float(cv2.magnitude(x, y).sum()) for x, y in pairs]
  d_x, d_y = (np.sum([pair[i] for pair in pairs], 0) for i in range(2))
  return cv2.cartToPolar(d_x, d_y, angleInDegrees=True), frames


def votes_by_pixel(magnitude, angle):
  bins = np.zeros(8)
  for strength, degrees in zip(magnitude.tolist(), angle.tolist(), strict=True):
    place, share = divmod(degrees / 45, 1)
    bins[int(place) % 8] += strength * (1 - share)
    bins[int(place + 1) % 8] += strength * share
  return bins


def votes_at_once(magnitude, angle):
  place = np.floor(angle / 45).astype(int)
  share = angle / 45 - place
  low = np.bincount(place % 8, magnitude * (1 - share), 8)
  return low + np.bincount((place + 1) % 8, magnitude * share, 8)


def motion_labels(flow, masks, votes):
  columns, last = [[], [], []], []
  for component in range(2):
    (magnitude, angle), frames = boundaries(flow[..., component])
    last.append(int(np.argmax(frames)) + 1)
    for pattern, region in enumerate(partition.REGIONS.values()):
      means = [magnitude[mask].mean() for mask in masks[region]]
      best = int(np.argmax(means))
      mask = masks[region][best]
      direction = int(np.argmax(votes(magnitude[mask], angle[mask])))
      columns[pattern] += [best + 1, direction + 1]
  return [*columns[0], *columns[1], *columns[2], *last]


def counts_numpy(frame, channel, mask):
  return np.histogram(frame[..., channel][mask], bins=256, range=(0, 256))[0]


def counts_opencv(frame, channel, mask):
  return cv2.calcHist([frame], [channel], mask.view(np.uint8), [256], [0, 256]).ravel()


def dominant(video, mask):
  pixels = video[:, mask].reshape(-1, 3)
  red, green, blue = pixels.T
  codes = 4 * (blue < 128) + 2 * (red >= 128) + (green >= 128)
  return int(np.bincount(codes, minlength=8).argmax()) + 1


def appearance_labels(video, masks, counts):
  overlaps = []
  for mask in masks:
    ratios = []
    for channel in range(3):
      histograms = [counts(frame, channel, mask) for frame in video]
      ratios.append(np.min(histograms, 0).sum() / np.max(histograms, 0).sum())
    overlaps.append(np.mean(ratios))
  columns = []
  for region in partition.REGIONS.values():
    for best in (int(np.argmin(overlaps[region])), int(np.argmax(overlaps[region]))):
      columns += [best + 1, dominant(video, masks[region][best])]
  return [*columns, dominant(video, np.ones((SIZE, SIZE), bool))]


HOST = {
  "plain": (votes_by_pixel, counts_numpy),
  "opencv": (votes_at_once, counts_opencv),
}


@jax.jit
def device_labels(flow, video):
  motion = motion_statistics.motion_statistics(flow)
  appearance = appearance_statistics.appearance_statistics(video)
  return (
    motion_statistics.motion_labels(motion),
    appearance_statistics.appearance_labels(appearance),
  )


def host_labels(flow, video, name):
  votes, counts = HOST[name]
  masks = partition.masks(SIZE)
  motion = [motion_labels(clip, masks, votes) for clip in flow]
  appearance = [appearance_labels(clip, masks, counts) for clip in video]
  return np.array(motion), np.array(appearance)


def smooth_input(clips, seed=0):
  """Smooth flow and video whose labels do not hang on rounding."""
  rng = np.random.default_rng(seed)

  def enlarge(frames):
    return np.stack([cv2.resize(f, (SIZE, SIZE)) for f in frames])

  flow = [enlarge(rng.normal(0, 3, (15, 7, 7, 2))) for _ in range(clips)]
  coarse = rng.uniform(0, 256, (clips, FRAMES, 28, 28, 3))
  video = np.stack([enlarge(clip) for clip in coarse])
  return np.stack(flow).astype(np.float32), video.astype(np.uint8)


def seconds(function, *args):
  start = time.perf_counter()
  jax.block_until_ready(function(*args))
  return time.perf_counter() - start


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--clips", type=int, default=30)
  parser.add_argument("--host_clips", type=int, default=2)
  parser.add_argument("--rounds", type=int, default=5)
  options = parser.parse_args()
  cv2.setNumThreads(1)
  flow, video = smooth_input(options.clips)
  inputs = jax.device_put((flow, video))
  found = jax.device_get(device_labels(*inputs))  # compiles
  few = flow[: options.host_clips], video[: options.host_clips]
  times = {name: [] for name in ("device", *HOST)}
  for _ in range(options.rounds):
    times["device"].append(seconds(device_labels, *inputs))
    for name in HOST:
      start = time.perf_counter()
      labels = host_labels(*few, name)
      spent = time.perf_counter() - start
      times[name].append(spent * options.clips / options.host_clips)
      for ours, theirs in zip(found, labels, strict=True):
        np.testing.assert_array_equal(ours[: options.host_clips], theirs)
  medians = {name: statistics.median(values) for name, values in times.items()}
  ratios = {name: medians[name] / medians["device"] for name in HOST}
  print(
    json.dumps(
      dict(
        device=jax.devices()[0].device_kind,
        cores=os.cpu_count(),
        load=os.getloadavg()[0],
        clips=options.clips,
        seconds=medians,
        times_faster=ratios,
      ),
      indent=2,
    )
  )


if __name__ == "__main__":
  main()
