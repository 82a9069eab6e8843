"""Motion of many videos in batches of one shape, on all devices of this process."""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from motion_jax.config import UserError, local_path
from motion_jax.data import motion_codec
from motion_jax.models.common import parameter_count
from motion_jax.models.raft import raft_flow
from motion_jax.models.raft_weights import load_raft
from motion_jax.ops import flow_edges
from motion_jax.ops.flow import variational_flow
from motion_jax.scale import sharding

logger = logging.getLogger("motion_jax")

_MULTIPLE = 32  # of the sides that the flow is compiled for
_IN_FLIGHT = 2  # batches on the device


def _variational(weights: str, solver: dict):
  if weights:
    raise UserError("--method=variational has no weights; leave out --weights")

  def flow(parameters, first, second):
    return variational_flow(first, second, **solver)

  return flow, ()


def _raft(weights: str, solver: dict):
  if not weights:
    raise UserError(
      "--method=raft needs --weights=FILE, raft-things.pth (or raft-small.pth) of the "
      "authors' models.zip (download_models.sh of github.com/princeton-vl/RAFT)"
    )
  try:
    model = load_raft(local_path(weights))
  except (OSError, ValueError) as error:
    raise UserError(f"--weights: {error}") from error
  if model.size != solver["size"]:
    raise UserError(
      f"--weights={weights} has the weights of RAFT {model.size!r}, not "
      f"{solver['size']!r}: give --size={model.size}, or the file of the other size"
    )
  logger.info("RAFT %s, %d parameters", model.size, parameter_count(model))
  graph, parameters = nnx.split(model)

  def flow(parameters, first, second):
    network = nnx.merge(graph, parameters)
    return raft_flow(network, first, second, solver["iterations"])

  return flow, nnx.as_pure(parameters)


# By name, a function of a weights file and of the settings `solver` that returns
# (parameters, first, second) -> flow and its parameters.
FLOWS: dict[str, Callable] = {"raft": _raft, "variational": _variational}

# Their settings `solver`, which a motion set keeps: those of the functions they call.
SOLVERS = {
  "raft": {"size": "large", "iterations": 20},
  "variational": {
    "smoothness": 0.6,
    "warps": 3,
    "fixed_points": 2,
    "iterations": 10,
    "smallest": 6,
    "finest": 0,
  },
}


@dataclasses.dataclass
class VideoMotion:
  """The motion of a video while it is being computed.

  Attributes:
    id: of the record.
    size: (height, width) of the frames.
    taken: frames handed in.
    strengths: mean edges of the frames that are finished, on the scale [0, 1].
    frames: [H, W, C] uint8 each, or what the receiver made of them.
    damage: why the video has no more frames; None while it may have.
  """

  id: str
  size: tuple[int, int] = (0, 0)
  taken: int = 0
  strengths: list[float] = dataclasses.field(default_factory=list)
  frames: list = dataclasses.field(default_factory=list)
  damage: str | None = None

  @property
  def complete(self) -> bool:
    return self.damage is not None and len(self.frames) == self.taken


class FlowBatches:
  """Collects frame pairs until they fill a batch, and computes their motion.

  Frames are extended to multiples of 32 by repeating their last rows and columns, so
  that few shapes are compiled, and the flow is cut back before its edges are found.

  Args:
    method: a key of `FLOWS`.
    weights: file, or ''.
    solver: settings of the method, all keys of `SOLVERS`.
    store: "edges" or "flow": what the frames hold.
    batch_size: pairs per device.
    receive: is called with each finished frame; what it returns is kept.
  """

  def __init__(
    self, method: str, weights: str, solver: dict, store: str, batch_size: int, receive
  ):
    devices = jax.local_devices()
    mesh = jax.make_mesh(
      (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )
    flow, parameters = FLOWS[method](weights, solver)
    everywhere, self._rows = sharding.replicated(mesh), sharding.split_rows(mesh)
    self._parameters = jax.device_put(parameters, everywhere)
    self._flow = jax.jit(
      flow,
      in_shardings=(everywhere, self._rows, self._rows),
      out_shardings=self._rows,
    )
    self._encode = functools.partial(_encode, store=store)
    self._size = batch_size * len(devices)
    self._receive = receive
    self._waiting = collections.defaultdict(list)  # by the size of the frames
    self._running = collections.deque()

  def add(self, video: VideoMotion, first: np.ndarray, second: np.ndarray) -> None:
    """Hands in the next pair of a video; results come in order, but later.

    Args:
      video: gets the result.
      first: [H, W, 3] uint8, the frame that the motion is of.
      second: [H, W, 3] uint8, where it goes.
    """
    video.size = first.shape[:2]
    video.taken += 1
    self._waiting[video.size].append((video, first, second))
    if len(self._waiting[video.size]) == self._size:
      self._run(video.size)

  def flush(self) -> None:
    """Finishes everything that has been handed in."""
    for size in [*self._waiting]:
      self._run(size)
    while self._running:
      self._collect()

  def _run(self, size: tuple[int, int]) -> None:
    items = self._waiting.pop(size)
    padded = [-(-side // _MULTIPLE) * _MULTIPLE for side in size]
    margins = [(0, 0), *((0, p - s) for p, s in zip(padded, size, strict=True)), (0, 0)]
    missing = [items[-1]] * (self._size - len(items))
    pairs = []
    for part in (1, 2):
      frames = np.stack([item[part] for item in [*items, *missing]])
      pairs.append(jax.device_put(np.pad(frames, margins, mode="edge"), self._rows))
    flow = self._flow(self._parameters, *pairs)
    result = self._encode(flow, height=size[0], width=size[1])
    self._running.append(([item[0] for item in items], result))
    if len(self._running) >= _IN_FLIGHT:
      self._collect()

  def _collect(self) -> None:
    videos, result = self._running.popleft()
    frames, strengths = jax.device_get(result)
    for video, frame, strength in zip(videos, frames, strengths, strict=False):
      video.frames.append(self._receive(frame))
      video.strengths.append(float(strength))


@functools.partial(jax.jit, static_argnames=("height", "width", "store"))
def _encode(flow, *, height, width, store):
  """8-bit motion [B, H, W, C] and the strengths [B] of flow with margins."""
  flow = flow[:, :height, :width]
  edges = flow_edges.flow_edges(flow)
  strengths = edges.mean((-1, -2)) / flow_edges.LIMIT
  motion = edges[..., None] if store == "edges" else flow
  return motion_codec.encode(motion, store), strengths
