"""One mesh axis `data`: batches and queues are split, all else is replicated."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from motion_jax.config import UserError


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh over all devices of all processes, process by process.

  So the rows of a process follow one another in a global batch (`join_rows`).

  Args:
    devices: instead of those that there are.
  """
  devices = jax.devices() if devices is None else devices
  devices = sorted(devices, key=lambda each: (each.process_index, each.id))
  # Auto: with the default Explicit axes, gathers and reshapes of sharded arrays raise.
  return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def on(mesh: Mesh, function: Callable) -> Callable:
  """A function whose program is for a mesh, which its operations then know of."""

  @functools.wraps(function)
  def run(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  return run


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh) -> NamedSharding:
  """Axis 0 is split evenly over the devices."""
  return NamedSharding(mesh, PartitionSpec("data"))


def shard_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Makes global arrays of a batch that every process has whole: [B, ...] each."""
  rows = split_rows(mesh)

  def place(array):
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, rows, array.__getitem__)

  return {name: place(array) for name, array in batch.items()}


def join_rows(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Makes global arrays [B, ...] from the rows [B / processes, ...] of each process.

  Process 0 has the first rows, process 1 the next ones, and so on.
  """
  rows = split_rows(mesh)
  return {
    name: jax.make_array_from_process_local_data(rows, np.asarray(array))
    for name, array in batch.items()
  }


def own_rows(array: jax.Array) -> np.ndarray:
  """Of what every device has of a joined batch, [B, ...], the rows of this process."""
  rows = len(array) // jax.process_count()
  first = rows * jax.process_index()
  return np.asarray(array.addressable_data(0))[first : first + rows]


def place(tree, shardings):
  """Puts arrays that every process has whole, or that lie there already, on a mesh.

  Args:
    tree: of arrays.
    shardings: where to, a prefix of the tree.
  """

  def on_host(array):  # arrays of one device cannot go to those of other processes
    return np.asarray(array) if array.is_fully_addressable else array

  return jax.device_put(jax.tree.map(on_host, tree), shardings)


def evaluation_rows(batch_size: int, mesh: Mesh) -> int:
  """A batch size of evaluations as the next multiple of the devices.

  Their batches may be larger: what is left over is filled up.

  Raises:
    UserError: if it is not positive.
  """
  check_batch_size("eval.batch_size", batch_size, 1, "at least one row")
  return -(-batch_size // mesh.size) * mesh.size


def check_batch_size(name: str, batch_size: int, multiple: int, of_what: str) -> None:
  """Raises UserError unless `batch_size` is a positive multiple of `multiple`."""
  if batch_size < 1 or batch_size % multiple:
    below = batch_size // multiple * multiple
    sizes = [str(size) for size in (below, below + multiple) if size > 0]
    raise UserError(
      f"{name}={batch_size} must be a multiple of {multiple} ({of_what}); "
      f"the nearest valid sizes are {' and '.join(sizes)}"
    )
