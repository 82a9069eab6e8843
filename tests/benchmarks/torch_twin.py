"""Times training steps of our networks beside the same networks in PyTorch.

    python tests/benchmarks/torch_twin.py --clips=9 --rounds=5
    python tests/benchmarks/torch_twin.py --device=cuda --dtype=bfloat16 --compile \
      --network=r2d3d_18,r2plus1d_10,r3d_50,c3d --rounds=20

Both sides do forward, cross-entropy, backward and Adam, ours once per lowering, one
step after the other in turn, so that other load on the machine hits all alike.
PyTorch has `channels_last_3d`, and with bfloat16 autocast; in float32 both may use
TF32 on a GPU. Prints a JSON object per network: median seconds, those of ours divided
by PyTorch's, and shares of the device's peak, of the operations of the native
lowering. Needs PyTorch, which nothing else in this project needs.
"""

import argparse
import json
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch.nn import functional
from torch_networks import Network

from motion_jax.costs import roofline
from motion_jax.costs.flops import stage_flops
from motion_jax.models import build_classifier, build_model, common
from motion_jax.scale import backend

CLASSES = 9
# Clips of a step on one GPU, frames, side. 10 sources give 9 clips each (MoSI), 512
# videos are on 8 GPUs (MoDist).
SHAPES = {
  "r2d3d_18": (90, 16, 112),
  "r2plus1d_10": (90, 16, 112),
  "r3d_50": (64, 8, 224),
  "c3d": (30, 16, 112),
}


def torch_step(name: str, shape, options):
  """(a function that runs one training step of the twin, its parameter count)."""
  clips, frames, size = shape
  if options.device == "cpu":
    torch.set_num_threads(os.cpu_count())
  torch.backends.cudnn.benchmark = True
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  twin = Network(name, options.width, CLASSES, options.device, options.dtype)
  twin = twin.to(options.device, memory_format=torch.channels_last_3d)
  count = sum(parameter.numel() for parameter in twin.parameters())
  fused = options.device == "cuda"
  optimiser = torch.optim.Adam(twin.parameters(), lr=1e-3, fused=fused)
  video = torch.randn(clips, 3, frames, size, size, device=options.device)
  video = video.to(memory_format=torch.channels_last_3d)
  labels = torch.arange(clips, device=options.device) % CLASSES
  run = torch.compile(twin) if options.compile else twin

  def step():
    optimiser.zero_grad()
    loss = functional.cross_entropy(run(video), labels)
    loss.backward()
    optimiser.step()
    return loss.item()  # waits for the device

  return step, count


def jax_update(name: str, shape, options, lowering: str):
  """Our training step, its state, and a video."""
  clips, frames, size = shape
  encoder = build_model(
    name,
    rngs=nnx.Rngs(0),
    width=options.width,
    dtype=jnp.dtype(options.dtype),
    lowering=lowering,
  )
  classifier = build_classifier(encoder, CLASSES, dropout=0.0, rngs=nnx.Rngs(1))
  graphdef, params, stats = common.split(encoder)
  head, head_params, _ = common.split(classifier)
  optimiser = optax.adam(1e-3)
  labels = jnp.arange(clips) % CLASSES
  video = np.random.default_rng(0).standard_normal((clips, frames, size, size, 3))
  video = jnp.asarray(video, jnp.float32)

  def loss(params, stats, video):
    features, stats = common.call(graphdef, params[0], stats, video, train=True)
    logits, _ = common.call(head, params[1], nnx.State({}), features, train=True)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), stats

  def update(state, video):
    params, stats, slots = state
    (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats, video)
    changes, slots = optimiser.update(grads, slots)
    return (optax.apply_updates(params, changes), stats, slots), value

  params = (params, head_params)
  state = (params, stats, optimiser.init(params))
  return jax.jit(update, donate_argnums=0), state, video


def jax_step(update, state, video):
  """A function that runs one training step of our network."""

  def step():
    nonlocal state
    state, value = update(state, video)
    return float(value)  # waits for the device

  return step


def compare(steps: dict, rounds: int) -> dict[str, float]:
  """Median seconds of each step, run in turn after two untimed rounds."""
  times = {name: [] for name in steps}
  for index in range(rounds + 2):
    for name, step in steps.items():
      start = time.perf_counter()
      step()
      if index >= 2:
        times[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in times.items()}


def measure(name: str, options) -> dict:
  """Times one network; see the top of this file."""
  default = SHAPES[name]
  shape = (options.clips or default[0], default[1], options.size or default[2])
  step, count = torch_step(name, shape, options)
  steps, counts, teraflops = {"torch": step}, {"torch": count}, 0.0
  for lowering in ("native", "folded"):
    ours = jax_update(name, shape, options, lowering)
    counts[lowering] = common.parameter_count(ours[1][0])
    if lowering == "native":
      teraflops = sum(stage_flops(*ours).values()) / 1e12
    steps[lowering] = jax_step(*ours)
  if len(set(counts.values())) > 1:
    raise ValueError(f"the networks are not the same: {counts} parameters")
  kind = jax.devices()[0].device_kind
  limits = roofline.given(options.peak.split(",")) if options.peak else None
  limits = limits or roofline.peak(kind)
  seconds = compare(steps, options.rounds)
  result = {
    "network": name,
    "device": kind,
    "dtype": options.dtype,
    "compiled": options.compile,
    "clips, frames, size": shape,
    "parameters": count,
    "teraflops": teraflops,
    "seconds": seconds,
    "ratio": {key: seconds[key] / seconds["torch"] for key in ("native", "folded")},
  }
  if limits:
    most = {key: teraflops / limits.teraflops / value for key, value in seconds.items()}
    result["share_of_peak"] = most
  return result


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument("--compile", action="store_true", help="torch.compile the twin")
  parser.add_argument("--network", default="r2d3d_18", help=f"of {', '.join(SHAPES)}")
  parser.add_argument("--clips", type=int, default=0, help="0: as the papers have")
  parser.add_argument("--size", type=int, default=0, help="pixels; 0: as the papers")
  parser.add_argument("--width", type=int, default=64)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--peak", default="", help="TFLOP/s,GB/s of the device")
  options = parser.parse_args()
  # Of a GPU, each side takes what it needs.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  jax.config.update("jax_platforms", options.device)
  backend.set_flags()
  for name in options.network.split(","):
    print(json.dumps(measure(name, options)), flush=True)


if __name__ == "__main__":
  main()
