"""A real SLURM, with two nodes on this machine: what `launch/slurm.sbatch` makes of it.

Needs root, for the daemons, and installs Debian's packages where they are missing.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import children
import pytest
from conftest import ROOT
from test_hosts import OVERRIDES

pytestmark = pytest.mark.long

# Nodes are named after addresses: JAX connects to the first one by its name.
CONF = """
ClusterName=two
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
NodeName=127.0.0.1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8
NodeName=127.0.0.2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8
PartitionName=all Nodes=ALL Default=YES
"""
# In place of Python: a method that compiles in a second, and for the second task
# further flags of its own.
PYTHON = """#!/usr/bin/env bash
shift 2
if [ "$SLURM_PROCID" = 1 ]; then set -- "$@" $SECOND; fi
exec {python} {root}/tests/tiny_main.py "$@"
"""
DAEMONS = ("munged", "slurmctld", "slurmd")


def installed():
  if os.geteuid():
    pytest.skip("the daemons of SLURM need root")
  if not all(map(shutil.which, DAEMONS)):
    apt = ["apt-get", "install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
      subprocess.run(["apt-get", "update"], capture_output=True, timeout=120)
      free = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
      subprocess.run(apt, capture_output=True, timeout=600, env=free)
  if missing := [name for name in DAEMONS if not shutil.which(name)]:
    pytest.skip(f"SLURM is not installed: no {', '.join(missing)}")


def free_ports(count):
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for each in sockets:
      each.bind(("127.0.0.1", 0))
    return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
  """Starts SLURM; returns the environment that its commands need."""
  installed()
  folder = tmp_path_factory.mktemp("slurm")
  (folder / "state").mkdir()
  host = socket.gethostname().partition(".")[0]
  conf = CONF.format(folder=folder, host=host, ports=free_ports(3))
  (folder / "slurm.conf").write_text(conf)
  python = folder / "python"
  python.write_text(PYTHON.format(python=sys.executable, root=ROOT))
  python.chmod(0o755)
  environment = {
    **children.environment(1),
    "SLURM_CONF": str(folder / "slurm.conf"),
    "PYTHON": str(python),
  }
  if subprocess.run(["munge", "-n"], capture_output=True).returncode:
    os.makedirs("/run/munge", exist_ok=True)
    shutil.chown("/run/munge", "munge")
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", shutil.which("munged")])
  daemons = (["slurmctld", "-D"], *(["slurmd", "-D", "-N", n] for n in NODES))
  quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  with children.started(*daemons, env=environment, **quiet):
    patience = time.monotonic() + 60
    while "idle" not in (text := called(environment, "sinfo", "--noheader")):
      assert time.monotonic() < patience, text
      time.sleep(0.5)
    yield environment


NODES = ("127.0.0.1", "127.0.0.2")
ONE_NODE = ("--nodes=1", "--ntasks-per-node=2")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")


def called(environment, *command):
  result = children.run(command, env=environment, timeout=60)
  return result.stdout + result.stderr


def submitted(environment, tasks, workdir, pictures, *flags):
  """Sends a job; returns its number."""
  values = {**OVERRIDES, "data.path": pictures}
  text = called(
    {**environment, "WORKDIR": str(workdir)},
    *("sbatch", "--parsable", "--gpus-per-node=0", "--cpus-per-task=1", "--time=0"),
    *(*tasks, f"--output={workdir}.log", f"--chdir={ROOT}"),
    *(ROOT / "launch" / "slurm.sbatch", "configs/mosi.py:smoke"),
    *(f"--config.{key}={value}" for key, value in values.items()),
    *flags,
  )
  assert text.strip().isdecimal(), text
  return text.strip()


def job(environment, number):
  """What SLURM knows about a job."""
  return dict(
    re.findall(r"(\w+)=(\S*)", called(environment, "scontrol", "show", "job", number))
  )


def ended(environment, number, log, seconds=300):
  """Waits for a job; returns (exit code, state, log)."""
  patience = time.monotonic() + seconds
  while (found := job(environment, number))["JobState"] in WAITS:
    assert time.monotonic() < patience, (found, log.read_text())
    time.sleep(0.5)
  return found["ExitCode"], found["JobState"], log.read_text()


WAITS = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


@pytest.mark.parametrize("tasks", [ONE_NODE, TWO_NODES], ids=["one_node", "two_nodes"])
@pytest.mark.parametrize(
  ("flags", "second", "told"),
  [
    (["--config.optim.lr=0.1"], "", "Did you mean 'learning_rate'?"),
    (["--config.data.path=/nowhere"], "", "/nowhere"),
    ([], "--config.data.path=/nowhere", "/nowhere"),
  ],
  ids=["key", "data", "data_of_one"],
)
def test_wrong_input_ends_a_job_with_2(
  cluster, tasks, flags, second, told, pictures, tmp_path
):
  environment = {**cluster, "SECOND": second}
  number = submitted(environment, tasks, tmp_path / "run", pictures, *flags)
  log = pathlib.Path(f"{tmp_path}/run.log")
  code, state, text = ended(environment, number, log)
  assert (code, state) == ("2:0", "FAILED"), text
  assert told in text and "requeue" not in text


@pytest.mark.parametrize("tasks", [ONE_NODE, TWO_NODES], ids=["one_node", "two_nodes"])
def test_a_job_that_sigterm_stops_queues_again_and_finishes(
  cluster, tasks, pictures, tmp_path
):
  workdir, log = tmp_path / "run", pathlib.Path(f"{tmp_path}/run.log")
  environment = {**cluster, "SECOND": "", "STEP_SECONDS": "0.1"}
  number = submitted(environment, tasks, workdir, pictures)
  patience = time.monotonic() + 300
  while not (workdir / "metrics.jsonl").exists():
    assert time.monotonic() < patience, log.read_text()
    time.sleep(0.1)
  called(environment, "scancel", "--signal=TERM", number)  # to its tasks
  while job(environment, number)["Restarts"] == "0":
    assert time.monotonic() < patience, log.read_text()
    time.sleep(0.2)
  assert "stopped by a signal" in log.read_text()
  while job(environment, number)["JobState"] == "COMPLETING":
    time.sleep(0.2)
  # SLURM would let it wait for two minutes; a node starts no job in the second in which
  # it has ended.
  called(environment, "scontrol", "update", f"job={number}", "StartTime=now+3")
  code, state, text = ended(environment, number, log)
  assert (code, state) == ("0:0", "COMPLETED"), text
  assert "resumed at step" in text and "2 processes" in text
  assert (workdir / "summary.json").exists()
