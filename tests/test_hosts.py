"""Several processes train as one, stop as one, and go on as another number of them."""

import shutil
import signal
import socket
import subprocess
import sys
import time

import children
import grain
import jax
import numpy as np
import pytest
import small_modist
import tiny_main
from conftest import ROOT
from ml_collections import ConfigDict
from test_config import CONFIGS, load

from motion_jax import logs, methods, train
from motion_jax.config import UserError, completed
from motion_jax.scale import cluster, hosts
from motion_jax.training.checkpoint import Checkpoints
from motion_jax.training.records import open_sources, with_records
from motion_jax.training.resuming import check_resumable

STEPS, MIDDLE = 60, 20
OVERRIDES = {
  "data.name": "folder",
  "optim.learning_rate": 0.01,
  "train.duration": f"{STEPS} steps",
  "train.log_every": 5,
  "train.checkpoint_every": f"{MIDDLE} steps",
  "train.keep": 9,
  "train.best": "",
  "eval.every": "30 steps",
  "eval.probe": False,
}


def config(pictures):
  result = load(CONFIGS / "mosi.py").get_config("smoke")
  result.update_from_flattened_dict({**OVERRIDES, "data.path": str(pictures)})
  return result


def start(
  pictures, workdir, *overrides, processes=2, devices=2, seconds=0.0, environment=None
):
  """Starts the processes of one run: a context with a list of them.

  Args:
    overrides: further flags, a list for every process; the same for all if empty.
    environment: further variables; see `tiny_main`.
  """
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  variables = {"STEP_SECONDS": str(seconds), **(environment or {})}
  environment = {**children.environment(devices), **variables}
  values = {**OVERRIDES, "data.path": pictures}
  command = [
    sys.executable,
    str(ROOT / "tests" / "tiny_main.py"),
    f"--config={ROOT}/configs/mosi.py:smoke",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in values.items()),
    f"--coordinator=127.0.0.1:{port}",
    f"--processes={processes}",
  ]
  commands = [
    [*command, f"--process_index={index}", *(overrides[index] if overrides else ())]
    for index in range(processes)
  ]
  return children.started(*commands, env=environment, stderr=subprocess.PIPE)


def finish(processes, timeout=120):
  """Waits; returns (exit codes, what stderr shows)."""
  texts = [process.communicate(timeout=timeout)[1] for process in processes]
  return [process.returncode for process in processes], texts


def wait_for_rows(workdir, count, processes):
  while len(logs.read_rows(workdir / "metrics.jsonl")) < count:
    assert all(process.poll() is None for process in processes)
    time.sleep(0.02)


def assert_same_metrics(workdir, expected):
  rows, others = (
    logs.read_rows(folder / "metrics.jsonl") for folder in (workdir, expected)
  )
  assert len(rows) == len(others) == STEPS // 5 + 2
  for row, other in zip(rows, others, strict=True):
    assert row.keys() == other.keys()
    np.testing.assert_allclose([*row.values()], [*other.values()], rtol=1e-4)


@pytest.fixture
def tiny_method(monkeypatch):
  monkeypatch.setitem(methods.METHODS, "mosi", tiny_main.Pictures)


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory):
  """A run of one process and one device."""
  workdir = tmp_path_factory.mktemp("straight")
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(methods.METHODS, "mosi", tiny_main.Pictures)
    train.train(config(pictures), workdir)
  return workdir


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_and_one_device_goes_on(
  straight, pictures, tmp_path, tiny_method
):
  with start(pictures, tmp_path, seconds=0.1) as processes:
    wait_for_rows(tmp_path, 1, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, texts = finish(processes)
  assert codes == [0, 0], texts
  assert "4 x cpu, 2 processes" in texts[0]
  assert "stopped by a signal" in texts[0]
  saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
  assert 5 <= max(saved) < STEPS
  assert len(logs.read_rows(tmp_path / "metrics.jsonl")) < STEPS // 5 + 2
  figure = "figures/pretext.png"
  assert (tmp_path / figure).read_bytes() == (straight / figure).read_bytes()

  train.train(config(pictures), tmp_path)
  assert_same_metrics(tmp_path, straight)


@pytest.mark.slow
def test_two_processes_go_on_from_one_device(straight, pictures, tmp_path):
  shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
  for path in (tmp_path / "checkpoints").iterdir():
    if int(path.name) > MIDDLE:
      shutil.rmtree(path)
  with start(pictures, tmp_path) as processes:
    codes, texts = finish(processes)
  assert codes == [0, 0], texts
  assert f"resumed at step {MIDDLE}" in texts[0]
  assert "done" in texts[0] and "done" not in texts[1]
  assert_same_metrics(tmp_path, straight)
  assert not [*tmp_path.glob(".process-*")]


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1])
def test_processes_go_on_at_the_same_step_although_one_sees_it_late(
  late, straight, pictures, tmp_path
):
  shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
  shutil.rmtree(tmp_path / "checkpoints" / str(STEPS))
  newest = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
  environment = {"LATE_PROCESS": str(late), "LATE_STEP": str(newest)}
  with start(pictures, tmp_path, devices=1, environment=environment) as processes:
    codes, texts = finish(processes)
  assert codes == [0, 0], texts
  assert f"resumed at step {newest}" in texts[0]
  assert "did not see it yet" in texts[late]
  assert_same_metrics(tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("killed", "number"),
  [
    (1, signal.SIGKILL),
    (0, signal.SIGKILL),
    pytest.param(1, signal.SIGSTOP, marks=pytest.mark.long),  # a host that hangs
    pytest.param(0, signal.SIGSTOP, marks=pytest.mark.long),
  ],
)
def test_a_killed_process_ends_the_other_within_a_minute(
  killed, number, pictures, tmp_path
):
  with start(pictures, tmp_path, devices=1, seconds=0.1) as processes:
    wait_for_rows(tmp_path, 1, processes)
    processes[killed].send_signal(number)
    other = processes[1 - killed]
    text = other.communicate(timeout=60)[1]
    assert other.returncode not in (0, None)
  signs = ("another process has ended", "another task died", "heartbeat")
  assert any(sign in text.lower() for sign in signs), text


@pytest.mark.slow
def test_processes_with_other_settings_are_no_run(pictures, tmp_path):
  seeds = [["--config.seed=1"], ["--config.seed=2"]]
  with start(pictures, tmp_path, *seeds, devices=1) as processes:
    codes, texts = finish(processes)
  assert codes == [2, 2], texts
  assert all("another command" in text and "--processes=1" in text for text in texts)


@pytest.mark.slow
def test_processes_with_other_data_are_no_run(pictures, tmp_path):
  more = tmp_path / "more"
  shutil.copytree(pictures, more)
  shutil.copy(more / "00.jpg", more / "24.jpg")
  paths = [[f"--config.data.path={path}"] for path in (pictures, more)]
  with start(pictures, tmp_path / "run", *paths, devices=1) as processes:
    codes, texts = finish(processes)
  assert codes == [2, 2], texts
  assert all("process 1 has other data than process 0" in text for text in texts)


def moved(stored, current, *, processes=1):
  """What a run is refused for; None if it goes on."""
  stored, current = (completed(each.to_dict()) for each in (stored, current))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "process_count", lambda: processes)
    try:
      check_resumable(stored, ConfigDict(current), "runs/a")
    except UserError as error:
      return str(error)


def test_a_run_goes_on_where_the_same_records_lie_elsewhere(pictures, tmp_path):
  """On one host or several; of other records only if there are no marks of them."""

  def on(folder, **overrides):
    result = config(folder)
    result.update_from_flattened_dict(overrides)
    return with_records(result, open_sources(result.data))

  shutil.copytree(pictures, tmp_path / "copy")
  before, same = on(pictures), on(tmp_path / "copy")
  host = {"data.threads": 3, "data.workers": 2, "data.data_dir": "/elsewhere"}
  for processes in (1, 2):
    assert not moved(before, same, processes=processes)
    assert not moved(before, on(pictures, **host), processes=processes)
    seed = on(tmp_path / "copy", seed=1)
    assert "seed: 0 -> 1" in moved(before, seed, processes=processes)
  (tmp_path / "copy" / "00.jpg").unlink()
  other = on(tmp_path / "copy")
  assert "data.path" in moved(before, other)
  assert "data.path" in moved(before, other, processes=2)
  shutil.copytree(tmp_path / "copy", tmp_path / "less")
  (tmp_path / "less" / "01.jpg").unlink()
  less = on(tmp_path / "less")
  less.data.path = other.data.path  # as if a file had gone between two starts
  assert "data: files were added, removed or renamed" in moved(other, less)
  before.data.records = ""  # of an older run
  assert "data.path" in moved(before, same)
  assert not moved(before, same, processes=2)
  assert not moved(before, on(pictures, **host))


def test_a_file_that_one_process_alone_sees_ends_the_others(tmp_path, monkeypatch):
  path = tmp_path / "weights.pth"
  assert not hosts.is_file(path)
  monkeypatch.setattr(hosts, "largest", lambda own: 1)  # another one sees it
  with pytest.raises(UserError, match=r"weights.pth is not there for process 0"):
    hosts.is_file(path)
  path.touch()
  assert hosts.is_file(path)


def test_hosts_may_have_their_data_in_other_places_and_nothing_else():
  words = ["--config=c.py", "--config.seed=1", "--config.data.data_dir", "/a"]
  assert cluster._common(words) == words[:2]
  words = ["--process_index=1", "--config.data.path=/a", "--config.data.interval=2"]
  assert cluster._common(words) == words[2:]
  flag = ["--config.data.workers", "--config.seed=1"]
  assert cluster._common(flag) == flag[1:]


def test_a_task_of_srun_can_be_a_run_of_its_own(monkeypatch):
  joined = []
  monkeypatch.setattr(cluster, "_connect", lambda **where: joined.append(where))
  monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
  cluster.join("", 1, None)
  assert not joined
  cluster.join("", None, None)
  monkeypatch.setenv("SLURM_GPUS_ON_NODE", "2")
  monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
  cluster.join("", None, None)
  monkeypatch.setenv("SLURM_STEP_NUM_NODES", "4")
  cluster.join("", None, None)
  monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "1")
  cluster.join("", None, None)
  found = [where["local_device_ids"] for where in joined]
  assert found == [None, None, [0, 1], None]


@pytest.mark.parametrize(
  ("name", "value"),
  [("TPU_WORKER_HOSTNAMES", "t1v-0,t1v-1"), ("MEGASCALE_NUM_SLICES", "2")],
)
def test_the_hosts_of_a_tpu_pod_are_found_by_jax(monkeypatch, name, value):
  joined = []
  monkeypatch.setattr(cluster, "_connect", lambda **where: joined.append(where))
  monkeypatch.setenv(name, value)
  cluster.join("", None, None)
  assert joined == [{}]


def save_on_eight_devices(workdir):
  """Saves MoDist's first state after two samples, also as plain arrays."""
  small_modist.use_tiny_networks()
  data = iter(grain.MapDataset.range(9).to_iter_dataset())
  next(data), next(data)
  checkpoints = Checkpoints(workdir)
  current = small_modist.trainer(8)[2](0)
  checkpoints.save(current, data, {"name": "modist"}, {})
  checkpoints.wait()
  arrays = map(np.asarray, jax.tree.leaves(jax.device_get(current)))
  np.savez(workdir / "saved.npz", *arrays)


def restore_on(workdir, *counts):
  """Restores it on so many devices of all processes and compares what lies here."""
  small_modist.use_tiny_networks()
  saved = [*np.load(workdir / "saved.npz").values()]
  for devices in counts:
    create = small_modist.trainer(devices)[2]
    moved = iter(grain.MapDataset.range(9).to_iter_dataset())
    other = create(99)
    assert differing(other, saved)
    restored = Checkpoints(workdir).restore(0, other, moved)
    assert next(moved) == 2
    place, keys = (x.aux["queues"]["visual"].keys for x in (other, restored))
    assert keys.sharding.is_equivalent_to(place.sharding, keys.ndim)
    assert not differing(restored, saved)


def wait_in_process(workdir, address, index):
  cluster.join(address, 2, index)
  (workdir / str(index)).touch()
  time.sleep(60)


def restore_in_process(workdir, address, index):
  cluster.join(address, 2, index)
  assert (jax.device_count(), jax.local_device_count()) == (8, 4)
  restore_on(workdir, 8)


def differing(tree, saved):
  """Whether parts of arrays that lie here differ from the saved arrays' parts."""
  arrays = jax.tree.leaves(tree)
  assert len(arrays) == len(saved)
  return any(
    not np.array_equal(shard.data, whole[shard.index])
    for array, whole in zip(arrays, saved, strict=True)
    for shard in array.addressable_shards
  )


def calling(function, workdir, *arguments):
  """Command that calls a function of this file on a path and literals."""
  values = ", ".join(map(repr, arguments))
  call = f"test_hosts.{function}(pathlib.Path({str(workdir)!r}), {values})"
  return [sys.executable, "-c", f"import pathlib, test_hosts; {call}"]


@pytest.fixture(scope="module")
def of_eight_devices(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("eight")
  command = calling("save_on_eight_devices", workdir)
  result = children.run(command, env=children.environment(8))
  assert result.returncode == 0, result.stderr
  return workdir


@pytest.mark.slow
def test_the_queues_of_eight_devices_go_on_with_fewer(of_eight_devices):
  command = calling("restore_on", of_eight_devices, 4, 2, 1)
  result = children.run(command, env=children.environment(8))
  assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_queues_of_eight_devices_go_on_in_two_processes(of_eight_devices):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  commands = [
    calling("restore_in_process", of_eight_devices, address, index)
    for index in range(2)
  ]
  pipes = dict(env=children.environment(4), stderr=subprocess.PIPE)
  with children.started(*commands, **pipes) as processes:
    codes, texts = finish(processes)
  assert codes == [0, 0], texts


@pytest.mark.slow
def test_sigterm_ends_a_process_that_does_not_train(tmp_path):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  commands = [calling("wait_in_process", tmp_path, address, index) for index in (0, 1)]
  with children.started(*commands, env=children.environment(1)) as processes:
    while len([*tmp_path.iterdir()]) < 2:
      assert all(process.poll() is None for process in processes)
      time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    assert processes[1].wait(timeout=10) == -signal.SIGTERM


@pytest.mark.parametrize(
  ("arguments", "fix"),
  [
    (("host:1", None, 0), "belong together"),
    (("", 2, 0), "belong together"),
    (("host", 2, 0), "must be HOST:PORT"),
    (("host:1", 2, 2), "must be in 0 to 1"),
  ],
)
def test_wrong_arguments_of_processes_name_the_fix(arguments, fix):
  with pytest.raises(UserError, match=fix):
    cluster.join(*arguments)


def test_a_coordinator_that_does_not_answer_is_named(monkeypatch):
  monkeypatch.setattr(cluster, "_JOIN_SECONDS", 0.1)
  with pytest.raises(UserError, match="has not answered at --coordinator"):
    cluster.join("127.0.0.1:1", 2, 1)


def test_what_never_comes_to_a_shared_disk_is_one_error(monkeypatch):
  monkeypatch.setattr(hosts, "_SHARED_SECONDS", 0.1)
  times = iter([False, True])
  hosts.wait_for_storage(lambda: next(times), "unused")
  with pytest.raises(UserError, match="process 1 does not see"):
    hosts.wait_for_storage(lambda: False, "process 1 does not see it")
