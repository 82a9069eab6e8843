"""What the launchers would run, and one real local sweep and two-process run."""

import json
import os
import pathlib
import shlex
import signal
import string
import subprocess
import sys
import time

import children
import pytest
import yaml
from conftest import ROOT
from test_config import load

LAUNCH = ROOT / "launch"


def run(*command, **environment):
  """Runs a launcher from the repository; returns (exit code, stdout, stderr)."""
  result = children.run(
    command,
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests", **environment},
  )
  return result.returncode, result.stdout, result.stderr


def python(script, *arguments):
  return run(sys.executable, LAUNCH / script, *arguments)


def commands(text):
  """The printed commands, split as a shell does."""
  lines = [line for line in text.splitlines() if not line.startswith("#")]
  return [shlex.split(line) for line in lines]


def test_local_processes_print_one_command_each():
  code, text, _ = python(
    "local_processes.py",
    *("--dry_run", "--processes=3", "--devices=2", "--port=1234"),
    *("--config=configs/mosi.py:smoke", "--config.seed=1"),
  )
  assert code == 0
  *processes, last = commands(text)
  assert last == ["wait"]
  flags = ["--coordinator=127.0.0.1:1234", "--processes=3"]
  for index, words in enumerate(processes):
    assert "motion_jax.main" in words and "--config.seed=1" in words
    assert words[-4:-1] == [*flags, f"--process_index={index}"]
    assert "XLA_FLAGS=--xla_force_host_platform_device_count=2" in " ".join(words[:2])
  assert len(processes) == 3


def test_a_launcher_without_a_config_says_so():
  code, _, text = python("local_processes.py", "--dry_run")
  assert code == 2
  assert "--config is missing" in text


@pytest.mark.parametrize("name", ["mosi", "modist", "mas", "finetune"])
def test_a_sweep_prints_a_command_for_each_setting(name):
  path = ROOT / "configs" / f"{name}.py"
  code, text, _ = python("xm_launch.py", f"--config={path}", "--dry_run")
  assert code == 0
  expected = list(load(path).sweep())
  found = commands(text)
  assert len(found) == len(expected)
  assert len({word for words in found for word in words if "workdir" in word}) == len(
    found
  )
  for words, (argument, settings) in zip(found, expected, strict=True):
    assert f"--config={path}:{argument}" in words
    for key, value in settings.items():
      assert f"--config.{key}={value}" in words


def test_a_word_chooses_a_part_of_the_sweep():
  path = ROOT / "configs" / "mosi.py"
  code, text, _ = python("xm_launch.py", f"--config={path}:hmdb51", "--dry_run")
  count = sum(argument == "hmdb51" for argument, _ in load(path).sweep())
  assert code == 0
  assert len(commands(text)) == count > 10
  code, _, text = python("xm_launch.py", f"--config={path}:hmdb", "--dry_run")
  assert code == 1
  assert "ucf101, hmdb51" in text


def test_slurm_starts_a_process_per_gpu_and_queues_again():
  script = LAUNCH / "slurm.sbatch"
  code, text, _ = run(
    "bash", script, "--dry_run", "configs/mosi.py:hmdb51,speeds=3", "--config.seed=1",
    WORKDIR="/shared/my run", PYTHON="/env/bin/python",
  )  # fmt: skip
  assert code == 0
  assert commands(text) == [
    ["srun", "--kill-on-bad-exit=1", "/env/bin/python", "-m", "motion_jax.main",
     "--config=configs/mosi.py:hmdb51,speeds=3", "--workdir=/shared/my run",
     "--config.seed=1"],
    ["scontrol", "requeue", "JOB"],
  ]  # fmt: skip
  _, text, _ = run("bash", script, "--dry_run", "c.py", "--config.mode=evaluate")
  assert [words[0] for words in commands(text)] == ["srun"]
  options = dict(
    line.removeprefix("#SBATCH --").partition("=")[::2]
    for line in script.read_text().splitlines()
    if line.startswith("#SBATCH")
  )
  assert options["ntasks-per-node"] == options["gpus-per-node"]
  assert options["signal"].startswith("TERM@")


def test_a_tpu_pod_is_made_used_and_deleted():
  code, text, _ = run(
    "bash", LAUNCH / "tpu_pod.sh", "--dry_run", "configs/mosi.py:kinetics400",
    "--config.data.data_dir=/mnt/shared/my data",
    PROJECT="p", ZONE="z", NFS="10.0.0.2:/vol", TYPE="v6e-64",
  )  # fmt: skip
  assert code == 0
  create, mount, copy, install, train, check, delete = commands(text)
  queued = ["gcloud", "compute", "tpus", "queued-resources"]
  assert create[:6] == [*queued, "create", "mosi-kinetics400"]
  assert {"--zone=z", "--project=p", "--accelerator-type=v6e-64", "--spot"} < {*create}
  assert "10.0.0.2:/vol /mnt/shared" in mount[-1]
  assert copy[4] == "scp"
  for path in copy[
    copy.index("--recurse") + 1 : copy.index("mosi-kinetics400:motion_jax/")
  ]:
    assert (ROOT / path).exists()
  assert "-e '.[tpu]'" in install[-1]
  for command in (mount, install, train):
    assert command[:6] == [*queued[:3], "tpu-vm", "ssh", "mosi-kinetics400"]
    assert "--worker=all" in command
  inner = shlex.split(train[-1].removeprefix("--command="))
  assert inner[-3:] == [
    "--config=configs/mosi.py:kinetics400",
    "--workdir=/mnt/shared/runs/mosi-kinetics400",
    "--config.data.data_dir=/mnt/shared/my data",
  ]
  assert "--worker=0" in check
  assert "/mnt/shared/runs/mosi-kinetics400/summary.json" in check[-1]
  assert delete[:6] == [*queued, "delete", "mosi-kinetics400"]


@pytest.mark.parametrize("script", ["slurm.sbatch", "tpu_pod.sh"])
def test_shell_launchers_ask_for_a_config(script):
  code, _, text = run("bash", LAUNCH / script, "--dry_run")
  assert code != 0
  assert "configs/FILE.py" in text


def test_a_job_set_starts_a_pod_per_host():
  text = (LAUNCH / "gke_jobset.yaml").read_text()
  names = dict(
    NAME="mosi", CONFIG="configs/mosi.py:kinetics400", IMAGE="r/motion_jax:1",
    TPU="tpu-v6e-slice", TOPOLOGY="4x4", HOSTS="4", CHIPS="4", CLAIM="shared",
  )  # fmt: skip
  found = yaml.safe_load(string.Template(text).substitute(names))
  assert found["kind"] == "JobSet"
  job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert job["parallelism"] == job["completions"] == 4
  assert job["completionMode"] == "Indexed"
  pod = job["template"]["spec"]
  [container] = pod["containers"]
  assert container["command"][:-2] == [
    "python", "launch/attended.py", "python", "-m", "motion_jax.main",
    "--config=configs/mosi.py:kinetics400",
  ]  # fmt: skip
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
  [volume], [mount] = pod["volumes"], container["volumeMounts"]
  assert volume["name"] == mount["name"]
  assert container["command"][-2].startswith(f"--workdir={mount['mountPath']}/")
  # Wrong input, exit code 2, is not tried a hundred times.
  [rule] = job["podFailurePolicy"]["rules"]
  assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
  [rule] = found["spec"]["failurePolicy"]["rules"]
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_launchers_that_could_not_be_tried_say_so():
  for name in ("slurm.sbatch", "tpu_pod.sh", "gke_jobset.yaml"):
    assert "# Not run on " in (LAUNCH / name).read_text()


def test_other_overrides_are_other_runs():
  def folders(*overrides):
    path = ROOT / "configs" / "finetune.py"
    _, text, _ = python("xm_launch.py", f"--config={path}", "--dry_run", *overrides)
    words = (word for words in commands(text) for word in words)
    return {word for word in words if word.startswith("--workdir=")}

  one, other = "--config.init_from=a/b", "--config.init_from=a_b"
  plain, first, second = folders(), folders(one), folders(other)
  assert len(plain) == len(first) == len(second)
  assert len(plain | first | second) == 3 * len(plain)
  seeds = ("--config.seed=1", one)
  assert folders(*seeds) == folders(*seeds[::-1])


SMALL = """
import importlib.util
spec = importlib.util.spec_from_file_location("mosi", {mosi!r})
mosi = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mosi)

def get_config(arg=None):
  config = mosi.get_config(arg)
  config.data.name, config.data.path = "folder", {pictures!r}
  config.eval.probe = False
  return config

def sweep():
  yield "smoke", {{}}
  yield "smoke", {{"method.distance_jitter": (0.9, 1.0)}}
  yield "smoke", {{"optim.learning_rate": "many"}}
"""


@pytest.mark.slow
def test_a_sweep_runs_here_and_goes_on_after_a_failure(pictures, tmp_path):
  path = tmp_path / "small.py"
  path.write_text(
    SMALL.format(mosi=str(ROOT / "configs" / "mosi.py"), pictures=str(pictures))
  )
  arguments = ("xm_launch.py", f"--config={path}", f"--root={tmp_path / 'runs'}")
  arguments += ("--module=tiny_main",)
  code, text, errors = python(*arguments)
  assert code == 1
  assert "3 runs, 0 of them finished" in text
  names = {folder.name for folder in (tmp_path / "runs").iterdir()}
  assert names == {
    "small-smoke",
    "small-smoke-distance_jitter=_0.9,_1.0_",
    "small-smoke-learning_rate=many",
  }
  finished = {file.parent.name for file in (tmp_path / "runs").glob("*/summary.json")}
  assert names - finished == {"small-smoke-learning_rate=many"}
  assert "learning_rate=many" in errors
  config = tmp_path / "runs" / "small-smoke-distance_jitter=_0.9,_1.0_" / "config.json"
  assert json.loads(config.read_text())["method"]["distance_jitter"] == [0.9, 1.0]


@pytest.mark.slow
def test_two_local_processes_are_started_and_stopped_together(pictures, tmp_path):
  command = [
    *(sys.executable, LAUNCH / "local_processes.py", "--module=tiny_main"),
    *("--processes=2", f"--config={ROOT}/configs/mosi.py:smoke"),
    *("--config.data.name=folder", f"--config.data.path={pictures}"),
    *("--config.train.duration=9000 steps", f"--workdir={tmp_path}"),
  ]
  paths = f"{ROOT}:{ROOT}/tests"
  environment = {**os.environ, "PYTHONPATH": paths, "STEP_SECONDS": "0.1"}
  pipes = dict(env=environment, stderr=subprocess.PIPE)
  with children.started(command, **pipes) as [launcher]:
    while not (pathlib.Path(tmp_path) / "metrics.jsonl").exists():
      assert launcher.poll() is None
      time.sleep(0.1)
    launcher.send_signal(signal.SIGTERM)
    text = launcher.communicate(timeout=120)[1]
  assert launcher.returncode == 0, text
  assert "2 processes" in text and "stopped by a signal" in text
  assert [*(tmp_path / "checkpoints").iterdir()]
