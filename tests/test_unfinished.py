"""What launchers take for a finished run, and what they do about others."""

import os
import signal
import sys
import time

import children
import pytest
from test_launch import LAUNCH, run


def stand_in(folder, name, script):
  """A program of that name in a folder, in place of the real one."""
  folder.mkdir(exist_ok=True)
  path = folder / name
  path.write_text(f"#!/usr/bin/env bash\n{script}\n")
  path.chmod(0o755)
  return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
  ("made", "flags", "again"),
  [
    ((), (), False),  # an evaluation: no checkpoints
    (("checkpoints",), (), True),  # a training that a signal has stopped
    (("checkpoints", "summary.json"), (), False),
    (("checkpoints",), ("--config.mode=evaluate",), False),
  ],
)
def test_slurm_queues_unfinished_trainings_again_and_nothing_else(
  made, flags, again, tmp_path
):
  for name in made:
    (tmp_path / "run" / name).mkdir(parents=True)
  stand_in(tmp_path / "bin", "srun", "")
  path = stand_in(tmp_path / "bin", "scontrol", f"touch {tmp_path}/queued")
  code, _, errors = run(
    "bash", LAUNCH / "slurm.sbatch", "configs/mosi.py", *flags,
    PATH=path, WORKDIR=str(tmp_path / "run"), SLURM_JOB_ID="7",
  )  # fmt: skip
  assert code == 0, errors
  assert (tmp_path / "queued").exists() == again


# Of Google Cloud: the first TPU is preempted during the run, which ends with 0; on the
# second the run reaches its end.
GCLOUD = r"""
log() {{ echo "$1" >> {folder}/log; }}
case "$*" in
  *describe*) cat {folder}/state 2>/dev/null || {{ echo NOT_FOUND >&2; exit 1; }} ;;
  *queued-resources\ create*) log create; echo ACTIVE > {folder}/state ;;
  *queued-resources\ delete*) log delete; rm {folder}/state ;;
  *summary.json*) [ -e {folder}/summary ] ;;
  *motion_jax.main*)
    log run
    if [ $(grep -c run {folder}/log) = 1 ]; then
      echo SUSPENDED > {folder}/state
    else
      touch {folder}/summary
    fi ;;
esac
"""


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_only_trainings_on_a_tpu_need_a_report(mode, tmp_path):
  stand_in(tmp_path / "bin", "sleep", f"echo sleep >> {tmp_path}/log; exit 1")
  (tmp_path / "log").write_text("run\n")  # an earlier one: this one is not preempted
  script = GCLOUD.format(folder=tmp_path).replace("touch", "true")
  path = stand_in(tmp_path / "bin", "gcloud", script)
  run(
    "bash", LAUNCH / "tpu_pod.sh", "configs/mosi.py", f"--config.mode={mode}",
    PROJECT="p", ZONE="z", NFS="n", PATH=path,
  )  # fmt: skip
  steps = (tmp_path / "log").read_text().split()
  last = "sleep" if mode == "train" else "delete"  # it would go on after that
  assert steps == ["run", "create", "run", last]


def test_a_preempted_tpu_is_asked_for_again_although_its_run_ended_with_0(tmp_path):
  stand_in(tmp_path / "bin", "sleep", "")
  path = stand_in(tmp_path / "bin", "gcloud", GCLOUD.format(folder=tmp_path))
  code, _, errors = run(
    "bash", LAUNCH / "tpu_pod.sh", "configs/mosi.py:kinetics400",
    PROJECT="p", ZONE="z", NFS="n", PATH=path,
  )  # fmt: skip
  assert code == 0, errors
  steps = (tmp_path / "log").read_text().split()
  assert steps == ["create", "run", "delete", "create", "run", "delete"]


def test_a_tpu_that_is_preempted_before_its_run_is_asked_for_again(tmp_path):
  stand_in(tmp_path / "bin", "sleep", "")
  (tmp_path / "log").write_text("run\n")  # an earlier one: the next is not preempted
  state = (
    f"$([ $(grep -c create {tmp_path}/log) = 1 ] && echo SUSPENDED || echo ACTIVE)"
  )
  script = GCLOUD.format(folder=tmp_path).replace("echo ACTIVE >", f"echo {state} >")
  path = stand_in(tmp_path / "bin", "gcloud", script)
  code, _, errors = run(
    "bash", LAUNCH / "tpu_pod.sh", "configs/mosi.py",
    PROJECT="p", ZONE="z", NFS="n", PATH=path,
  )  # fmt: skip
  assert code == 0, errors
  steps = (tmp_path / "log").read_text().split()
  assert steps == ["run", "create", "delete", "create", "run", "delete"]


# A run that needs a moment to save what it has when it is asked to stop.
RUN = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1].removeprefix("--workdir="))
def save(number, frame):
  time.sleep(1)
  (folder / "saved").touch()
  sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, save if "--deaf" not in sys.argv else signal.SIG_IGN)
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "started").touch()
time.sleep(60 if "--quick" not in sys.argv else 0)
"""


def attended(folder, *flags):
  script = folder / "run.py"
  script.write_text(RUN)
  command = (sys.executable, script, f"--workdir={folder}", *flags)
  return [sys.executable, LAUNCH / "attended.py", *command]


def wait_for(path, process):
  while not path.exists():
    assert process.poll() is None
    time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_launcher_waits_until_its_run_has_saved(number, tmp_path):
  with children.started(attended(tmp_path)) as [launcher]:
    wait_for(tmp_path / "started", launcher)
    os.killpg(launcher.pid, number)  # as a terminal does: to all of them
    assert launcher.wait(timeout=30) == 75
    assert (tmp_path / "saved").exists()


def test_a_second_ctrl_c_kills_a_run(tmp_path):
  with children.started(attended(tmp_path, "--deaf")) as [launcher]:
    wait_for(tmp_path / "started", launcher)
    launcher.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=30) == 75


@pytest.mark.parametrize(
  ("report", "mode", "expected"),
  [("summary.json", "train", 0), ("figures", "train", 75), ("figures", "evaluate", 0)],
)
def test_a_training_without_its_report_is_not_finished(
  report, mode, expected, tmp_path
):
  (tmp_path / report).touch()
  script = "import attended, sys; attended._SEEN_SECONDS = 0; sys.exit(attended.main())"
  flags = f"--workdir=~/{tmp_path.name}", f"--config.mode={mode}"
  command = attended(tmp_path, "--quick", *flags)[2:]
  known = dict(PYTHONPATH=str(LAUNCH), HOME=str(tmp_path.parent))
  code, _, errors = run(sys.executable, "-c", script, *command, **known)
  assert code == expected, errors
