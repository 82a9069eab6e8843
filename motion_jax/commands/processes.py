"""Flags by which the processes of one command find each other."""

from absl import flags

from motion_jax.scale import cluster

_COORDINATOR = flags.DEFINE_string(
  "coordinator", "", "HOST:PORT of process 0 of several; TPU pods and srun need none."
)
_PROCESSES = flags.DEFINE_integer(
  "processes", None, "How many processes there are; 1 alone: join no others."
)
_PROCESS_INDEX = flags.DEFINE_integer("process_index", None, "Number of this process.")


def join(*, stops_on_sigterm: bool = False) -> None:
  """Joins the others as the flags, or the cluster, say; see `cluster.join`."""
  where = _COORDINATOR.value, _PROCESSES.value, _PROCESS_INDEX.value
  cluster.join(*where, stops_on_sigterm=stops_on_sigterm)
