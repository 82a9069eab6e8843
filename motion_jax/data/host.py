"""What of its cores and memory this process may use for its input."""

from __future__ import annotations

import dataclasses
import os
import pathlib

AUTO = -1  # of data.threads and data.workers: by the host
_CGROUP = pathlib.Path("/sys/fs/cgroup")
_OWN_GROUP = pathlib.Path("/proc/self/cgroup")
_THREADED = 16  # cores that one process keeps busy; more wait for its interpreter lock
_CORES_OF_WORKER = 4
_WORKER = 2**29  # bytes of a process that has loaded this program
_MOST_AHEAD = 8 * 2**30  # bytes of rows


@dataclasses.dataclass(frozen=True)
class InputPlan:
  """How a host makes its rows.

  Attributes:
    workers: processes that do it; 0 for threads of this one.
    threads: in each process.
    ahead: rows that each process makes ahead.
    megabytes: of all rows ahead.
  """

  workers: int
  threads: int
  ahead: int
  megabytes: float

  def __str__(self) -> str:
    who = f"{self.workers} worker processes x " if self.workers else ""
    size = f"{self.megabytes:.0f} MB"
    if self.megabytes >= 1e3:
      size = f"{self.megabytes / 1e3:.1f} GB"
    return (
      f"input: {who}{self.threads} threads, {size} read ahead; data.workers, "
      "data.threads change it"
    )


def plan_input(
  row: int, batch: int, *, threads: int = AUTO, workers: int = AUTO
) -> InputPlan:
  """Chooses what is not given by the host's cores, memory and the size of rows.

  Up to 16 cores, threads of this process; beyond that processes for 4 cores each. The
  next batch is read ahead, and a row for each thread, as far as a quarter of the
  memory and 8 GB go: threads have at least a row each in any case.

  Args:
    row: bytes of a row.
    batch: rows of a batch on this host.
    threads: of a process; `AUTO` to choose.
    workers: processes; 0 for none, `AUTO` to choose.
  """
  usable = memory() // 4
  if workers == AUTO:
    workers = cores() // _CORES_OF_WORKER if cores() > _THREADED else 0
    workers = min(workers, usable // _WORKER)
  processes = max(1, workers)
  if threads == AUTO:
    threads = default_threads(processes)
  most = min(batch + threads * processes, min(_MOST_AHEAD, usable) // row)
  ahead = max(threads, most // processes)
  return InputPlan(workers, threads, ahead, ahead * processes * row / 1e6)


def default_threads(processes: int = 1) -> int:
  """Returns two threads for each core of a process, at most 16.

  On a busy machine, one per core gets little more than one core.
  """
  return max(2, min(16, 2 * cores() // processes))


def cores() -> int:
  """The cores that this process may use: its affinity, and the limits of its groups."""
  if hasattr(os, "sched_getaffinity"):
    count = len(os.sched_getaffinity(0))
  else:
    count = os.cpu_count() or 1
  limits = [text.partition(" ")[::2] for text in _limits("cpu.max")]  # version 2
  limits.append((_read("cpu/cpu.cfs_quota_us"), _read("cpu/cpu.cfs_period_us")))  # 1
  for quota, period in limits:
    if quota.isdecimal() and period.isdecimal():
      count = min(count, -(-int(quota) // int(period)))
  return max(1, count)


def memory() -> int:
  """Bytes that this process could get; the limit of its group, which counts caches."""
  found = [2**34]  # where nothing is told
  for line in _lines("/proc/meminfo"):
    if line.startswith("MemAvailable:"):
      found = [1024 * int(line.split()[1])]
  for limit in (*_limits("memory.max"), _read("memory/memory.limit_in_bytes")):
    if limit.isdecimal():
      found.append(int(limit))
  return min(found)


def _limits(name: str) -> list[str]:
  """A limit of this process's control group, and of those around it."""
  own = next((line[3:] for line in _lines(_OWN_GROUP) if line[:3] == "0::"), "/")
  folder = pathlib.PurePosixPath(own.lstrip("/"))
  return [_read(str(group / name)) for group in (folder, *folder.parents)]


def _read(name: str) -> str:
  return "".join(_lines(_CGROUP / name)).strip()


def _lines(path) -> list[str]:
  try:
    return pathlib.Path(path).read_text().splitlines()
  except OSError:
    return []
