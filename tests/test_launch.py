"""What the launchers would run, and one real local sweep and two-process run."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import children
import pytest
from conftest import ROOT
from test_config import load

LAUNCH = ROOT / "launch"
SHELL = ("slurm.sbatch", "tpu_pod.sh", "gke.sh")
SWEPT = sorted(
  path.stem
  for path in (ROOT / "configs").glob("*.py")
  if "\ndef sweep(" in path.read_text()
)


def run(*command, **environment):
  """Runs a launcher from the repository; returns (exit code, stdout, stderr).

  Where it would check its config with $PYTHON, which takes seconds, `true` says yes.
  """
  result = children.run(
    command,
    cwd=ROOT,
    env={
      **os.environ,
      "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
      "PYTHON": "true",
      **environment,
    },
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
    assert words[0] == "JAX_PLATFORMS=cpu" and words[1].startswith("XLA_FLAGS=")
    assert words[1].endswith("--xla_force_host_platform_device_count=2")
  assert len(processes) == 3


def test_local_processes_share_the_gpus():
  words = ("--dry_run", "--devices=2", "--config=configs/mosi.py:smoke")
  command = (sys.executable, LAUNCH / "local_processes.py", *words)
  code, text, _ = run(*command, JAX_PLATFORMS="cuda")
  assert code == 0
  first, second, _ = commands(text)
  assert first[:3] == ["JAX_PLATFORMS=cuda", "env", "JAX_LOCAL_DEVICE_IDS=0,1"]
  assert second[:3] == ["JAX_PLATFORMS=cuda", "env", "JAX_LOCAL_DEVICE_IDS=2,3"]


def test_a_launcher_without_a_config_says_so():
  code, _, text = python("local_processes.py", "--dry_run")
  assert code == 2
  assert "--config is missing" in text


@pytest.mark.parametrize("name", SWEPT)
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
    ["srun", "--kill-on-bad-exit=0", "--wait=300",
     "/env/bin/python", "-m", "motion_jax.main",
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
  asked = {line for line in script.read_text().splitlines() if "#SBATCH --" in line}
  for word in ("--help", "--dry_run"):  # a half of a node's GPUs is nobody's wish
    _, text, _ = run("bash", script, word, "configs/mosi.py")
    assert asked <= {*text.splitlines()}


@pytest.mark.parametrize(
  ("codes", "expected", "starts"),
  [
    ((75, 0), 0, 2),  # storage that comes back
    ((75, 134, 75), 75, 3),
    ((2,), 2, 1),
    ((1,), 1, 1),
    ((127,), 127, 1),  # no python
    ((143,), 143, 1),  # at its time limit
  ],
)
def test_a_slurm_job_starts_again_when_storage_has_failed(
  codes, expected, starts, tmp_path
):
  (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
  srun = tmp_path / "srun"
  srun.write_text(
    "#!/bin/sh\ncd $(dirname $0)\ncode=$(head -n1 codes)\nsed -i 1d codes\nexit $code\n"
  )
  (tmp_path / "sleep").write_text("#!/bin/sh\n")
  for path in (srun, tmp_path / "sleep"):
    path.chmod(0o755)
  code, text, _ = run(
    *("bash", LAUNCH / "slurm.sbatch", "configs/mosi.py:smoke"),
    PATH=f"{tmp_path}:{os.environ['PATH']}",
    WORKDIR=str(tmp_path / "run"),
  )
  assert code == expected
  assert [words[0] for words in commands(text)] == ["srun"] * starts


@pytest.mark.parametrize("script", SHELL)
def test_shell_launchers_ask_for_a_config(script):
  code, _, text = run("bash", LAUNCH / script, "--dry_run")
  assert code == 2
  assert "configs/FILE.py" in text
  code, _, text = run("bash", LAUNCH / script, "--config=configs/mosi.py")
  assert code == 2
  assert "--config=configs/mosi.py: the config file comes first, without" in text


@pytest.mark.parametrize("script", SHELL)
def test_shell_launchers_let_the_program_check_a_config(script, tmp_path):
  command = ("bash", LAUNCH / script, "--dry_run", "configs/mosi.py", "--config.a=1")
  python = tmp_path / "python"
  python.write_text("#!/bin/sh\necho noise\necho error: no $4 in $3 >&2\nexit 2\n")
  python.chmod(0o755)
  code, text, errors = run(*command, PYTHON=str(python))
  assert (code, text) == (2, "")
  assert errors == "error: no --config.a=1 in --config=configs/mosi.py\n"
  code, text, errors = run(*command, PYTHON=str(tmp_path / "none"))
  assert code == 0 and "motion_jax.main" in text
  assert "NOT CHECKED" in errors and "PYTHON=... names" in errors
  _, text, errors = run(*command)
  assert "motion_jax.main" in text and errors == ""


@pytest.mark.parametrize("script", ["tpu_pod.sh", "gke.sh"])
def test_the_python_of_the_repository_checks_a_config(script, tmp_path):
  shutil.copytree(LAUNCH, tmp_path / "launch")
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "a.py").touch()
  own = tmp_path / ".venv" / "bin" / "python"
  own.parent.mkdir(parents=True)
  own.write_text("#!/bin/sh\necho error: it was asked >&2\nexit 2\n")
  own.chmod(0o755)
  words = f"launch/{script} --dry_run configs/a.py"
  command = ("bash", "-c", f"cd {tmp_path}; bash {words}")
  known = dict(PYTHON="", PATH=f"{tmp_path}/bin:/usr/bin:/bin")
  assert run(*command, **known, VIRTUAL_ENV="")[::2] == (2, "error: it was asked\n")
  code, text, errors = run(*command, **known, VIRTUAL_ENV="/another")
  assert code == 0 and text and "it was asked" not in errors


def test_a_config_word_that_nobody_knows_asks_for_no_tpu(tmp_path):
  gcloud = tmp_path / "gcloud"
  gcloud.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
  gcloud.chmod(0o755)
  code, text, errors = run(
    "bash", LAUNCH / "tpu_pod.sh", "configs/mosi.py:kinetics40",
    PYTHON=sys.executable, PATH=f"{tmp_path}:{os.environ['PATH']}",
    PROJECT="p", ZONE="z", NFS="n",
  )  # fmt: skip
  assert (code, text) == (2, "")
  assert "Did you mean 'kinetics400'?" in errors
  assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("script", SHELL)
@pytest.mark.parametrize(
  ("words", "told"),
  [
    (("--workdir=/mnt/shared/a",), "WORKDIR=... instead of --workdir"),
    (("--config.seed=1", "--workdir", "/mnt/shared/a"), "WORKDIR=... instead"),
    (("-workdir=/mnt/shared/a",), "WORKDIR=... instead"),
    (("--config.mode", "evaluate"), "--config.mode is not of the form"),
    (("--config=configs/mas.py",), "--config=configs/mas.py is not of the form"),
    (("--dry_run",), "--dry_run is not of the form"),
  ],
)
def test_shell_launchers_refuse_what_would_mislead_them(script, words, told):
  command = ("bash", LAUNCH / script, "--dry_run", "configs/mosi.py", *words)
  code, printed, text = run(*command)
  assert (code, printed) == (2, "")
  assert told in text


@pytest.mark.parametrize("word", ["--workdir=a", "--config.mode=evaluate", "--x"])
def test_a_sweep_names_its_folders_and_trains(word):
  path = ROOT / "configs" / "mosi.py"
  code, printed, text = python("xm_launch.py", f"--config={path}", "--dry_run", word)
  assert (code, printed) == (2, "")
  assert word in text


def test_launchers_that_could_not_be_tried_say_so():
  for name in ("tpu_pod.sh", "gke.sh", "gke_jobset.yaml"):
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


@pytest.mark.parametrize(
  ("flags", "code"),
  [
    (("--workdir={folder}",), 75),
    (("--workdir={folder}", "--workdir", "{folder}/new"), 0),  # the last one counts
    (("--workdir", "{folder}/new", "-workdir={folder}"), 75),
    (("--workdir={folder}", "--config.mode", "evaluate"), 0),
    (("--workdir={folder}", "--config.mode=evaluate", "-config.mode", "train"), 75),
    (("--config.mode=train",), 2),  # which a job set does not try again
  ],
)
def test_attended_reads_flags_as_the_program_does(flags, code, tmp_path):
  (tmp_path / "checkpoints").mkdir()
  script = "import attended, sys; attended._SEEN_SECONDS = 0; sys.exit(attended.main())"
  words = [word.format(folder=tmp_path) for word in flags]
  found, _, errors = run(
    sys.executable, "-c", script, "true", *words, PYTHONPATH=str(LAUNCH)
  )
  assert found == code, errors


SMALL = """
import importlib.util
spec = importlib.util.spec_from_file_location("mosi", {mosi!r})
mosi = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mosi)

def get_config(arg=None):
  config = mosi.get_config(arg)
  config.data.name, config.data.path = "folder", {pictures!r}
  config.eval.probe, config.train.best = False, ""
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
    "--config.train.best=",
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
