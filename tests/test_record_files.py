"""Many files of records, few of which are open; what of a host its input takes."""

import concurrent.futures
import pickle
import subprocess
import sys

import children
import pytest

from motion_jax.data import disk, host
from motion_jax.data.record_files import RecordFiles


def _write(folder, files, records=3):
  """Files of records b'number of the file/number in it'."""
  made = []
  for number in range(files):
    path = folder / f"{number}.array_record"
    with disk.new_records(path, "group_size:1") as store:
      for record in range(records):
        store(f"{number}/{record}".encode())
    made.append((str(path), records))
  return made


def test_records_are_numbered_over_all_files(tmp_path):
  files = RecordFiles(_write(tmp_path, 5), most_open=2)
  expected = [
    f"{number}/{record}".encode() for number in range(5) for record in (0, 1, 2)
  ]
  assert len(files) == 15 and [files[n] for n in range(15)] == expected
  again = pickle.loads(pickle.dumps(files))
  assert [again[n] for n in reversed(range(15))] == expected[::-1]
  for wrong in (-1, 15):
    with pytest.raises(IndexError):
      files[wrong]


def test_threads_share_few_open_files(tmp_path):
  files = RecordFiles(_write(tmp_path, 40), most_open=3)
  numbers = [n * 37 % 120 for n in range(2000)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    found = [*pool.map(files.__getitem__, numbers)]
  assert found == [f"{n // 3}/{n % 3}".encode() for n in numbers]


READ_ALL = """
import os, resource, sys
from motion_jax.data.record_files import RecordFiles
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
files = RecordFiles([(f"{sys.argv[1]}/{n}.array_record", 3) for n in range(150)])
for turn in range(2):
  for number in range(len(files)):
    files[number]
print(len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_more_files_are_read_than_may_be_open(tmp_path):
  _write(tmp_path, 150)
  command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
  result = subprocess.run(
    command, capture_output=True, text=True, env=children.environment(1)
  )
  assert result.returncode == 0, result.stderr
  assert int(result.stdout) < 32


def _host(monkeypatch, cores, memory=2**40):
  monkeypatch.setattr(host, "cores", lambda: cores)
  monkeypatch.setattr(host, "memory", lambda: memory)


@pytest.mark.parametrize(
  ("cores", "workers", "threads"), [(1, 0, 2), (2, 0, 4), (16, 0, 16), (96, 24, 8)]
)
def test_threads_and_workers_follow_the_cores(cores, workers, threads, monkeypatch):
  _host(monkeypatch, cores)
  plan = host.plan_input(10**6, 32)
  assert (plan.workers, plan.threads) == (workers, threads)
  given = host.plan_input(10**6, 32, threads=3, workers=5)
  assert (given.workers, given.threads) == (5, 3)


def test_the_start_up_line_says_what_is_read_ahead(monkeypatch):
  _host(monkeypatch, 32)
  assert str(host.plan_input(10**7, 64)) == (
    "input: 8 worker processes x 8 threads, 1.3 GB read ahead; data.workers, "
    "data.threads change it"
  )
  assert str(host.plan_input(10**6, 8, workers=0, threads=2)).startswith(
    "input: 2 threads, 10 MB"
  )


@pytest.mark.parametrize("memory", [2**40, 2**33, 2**20])
@pytest.mark.parametrize("cores", [2, 96, 256])
@pytest.mark.parametrize("batch", [8, 512])
def test_rows_ahead_fit_into_memory_and_keep_threads_busy(
  batch, cores, memory, monkeypatch
):
  _host(monkeypatch, cores, memory)
  row = 10**7
  plan = host.plan_input(row, batch)
  processes = max(1, plan.workers)
  assert plan.ahead >= plan.threads >= 2
  assert plan.ahead * processes <= batch + (plan.threads + 1) * processes
  least = plan.threads * processes * row
  assert plan.ahead * processes * row <= max(least, min(memory / 4, 8 * 2**30))
  assert plan.workers * 2**29 <= memory / 4


@pytest.mark.parametrize("own", ["/", "/system.slice/job_7", "/elsewhere"])
def test_a_limit_of_a_control_group_counts(own, tmp_path, monkeypatch):
  """Of its own, or of one around it."""
  (tmp_path / "own").write_text(f"1:name=systemd:/x\n0::{own}\n")
  (tmp_path / "system.slice" / "job_7").mkdir(parents=True)
  monkeypatch.setattr(host, "_OWN_GROUP", tmp_path / "own")
  monkeypatch.setattr(host, "_CGROUP", tmp_path)
  free, all_cores = host.memory(), host.cores()
  if "job" in own:
    tmp_path = tmp_path / "system.slice"
  (tmp_path / "cpu.max").write_text("150000 100000\n")
  (tmp_path / "memory.max").write_text("1000000\n")
  assert host.memory() == 10**6 and host.cores() == min(2, all_cores)
  (tmp_path / "cpu.max").write_text("max 100000\n")
  (tmp_path / "memory.max").write_text("max\n")
  assert host.cores() == all_cores and abs(host.memory() - free) < 2**33
