"""Times a training step of R-2D3D-18 beside the same network in PyTorch.

    python tests/benchmarks/torch_twin.py --clips=9 --rounds=5

Both sides do forward, cross-entropy, backward and Adam in float32 on all cores, one
step after the other in turn, so that other load on the machine hits both alike.
Prints JSON with the median seconds and their ratio. Needs PyTorch, which nothing
else in this project needs.
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

from motion_jax.models import build_model, common, heads


class ConvPath(torch.nn.Sequential):
  """Convolutions with batch norm, ReLU between them."""

  def __init__(self, *steps):
    layers = []
    for index, (inputs, outputs, kernel, strides) in enumerate(steps):
      layers += [torch.nn.ReLU(inplace=True)] * (index > 0)
      padding = tuple(size // 2 for size in kernel)
      layers += [
        torch.nn.Conv3d(inputs, outputs, kernel, strides, padding, bias=False),
        torch.nn.BatchNorm3d(outputs, eps=1e-3),
      ]
    super().__init__(*layers)


class Block(torch.nn.Module):
  """Basic residual block."""

  def __init__(self, inputs, outputs, time_taps, strides):
    super().__init__()
    kernel = (time_taps, 3, 3)
    self.path = ConvPath(
      (inputs, outputs, kernel, strides), (outputs, outputs, kernel, (1, 1, 1))
    )
    changes = strides != (1, 1, 1) or inputs != outputs
    self.shortcut = (
      ConvPath((inputs, outputs, (1, 1, 1), strides))
      if changes
      else torch.nn.Identity()
    )

  def forward(self, x):
    return functional.relu(self.path(x) + self.shortcut(x), inplace=True)


def build_twin(width: int = 64, classes: int = 9) -> torch.nn.Sequential:
  """R-2D3D-18 with a linear classifier, video [B, C, T, H, W]."""
  layers = [
    ConvPath((3, width, (1, 7, 7), (1, 2, 2))),
    torch.nn.ReLU(inplace=True),
    torch.nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
  ]
  inputs = width
  for factor, taps, strides in (
    (1, 1, (1, 1, 1)),
    (2, 1, (1, 2, 2)),
    (4, 3, (2, 2, 2)),
    (4, 3, (2, 2, 2)),
  ):
    for step in (strides, (1, 1, 1)):
      layers.append(Block(inputs, width * factor, taps, step))
      inputs = width * factor
  layers += [
    torch.nn.AdaptiveAvgPool3d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(inputs, classes),
  ]
  return torch.nn.Sequential(*layers)


def torch_step(clips: int, frames: int, size: int):
  """A function that runs one training step of the twin."""
  torch.set_num_threads(os.cpu_count())
  twin = build_twin().to(memory_format=torch.channels_last_3d)
  optimiser = torch.optim.Adam(twin.parameters(), lr=1e-3)
  video = torch.randn(clips, 3, frames, size, size)
  video = video.to(memory_format=torch.channels_last_3d)
  labels = torch.arange(clips) % 9

  def step():
    optimiser.zero_grad()
    loss = functional.cross_entropy(twin(video), labels)
    loss.backward()
    optimiser.step()
    return loss.item()

  return step


def jax_step(clips: int, frames: int, size: int, lowering: str):
  """A function that runs one training step of our network."""
  encoder = build_model("r2d3d_18", rngs=nnx.Rngs(0), lowering=lowering)
  classifier = heads.Classifier(encoder.features, 9, dropout=0.0, rngs=nnx.Rngs(1))
  graphdef, params, stats = common.split(encoder)
  head, head_params, _ = common.split(classifier)
  optimiser = optax.adam(1e-3)
  labels = jnp.arange(clips) % 9
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

  update = jax.jit(update, donate_argnums=0)
  params = (params, head_params)
  state = (params, stats, optimiser.init(params))

  def step():
    nonlocal state
    state, value = update(state, video)
    return float(value)

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


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--clips", type=int, default=9)
  parser.add_argument("--frames", type=int, default=16)
  parser.add_argument("--size", type=int, default=112)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--lowering", default="auto")
  options = parser.parse_args()
  shape = (options.clips, options.frames, options.size)
  medians = compare(
    {"torch": torch_step(*shape), "jax": jax_step(*shape, options.lowering)},
    options.rounds,
  )
  print(json.dumps({**medians, "ratio": medians["jax"] / medians["torch"]}))


if __name__ == "__main__":
  main()
