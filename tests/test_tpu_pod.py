"""The launcher of TPU pods: what it runs, and what it does about a TPU's states."""

import os
import shlex
import shutil
import subprocess
import time

import children
import pytest
from conftest import ROOT
from test_launch import LAUNCH, commands, run
from test_unfinished import stand_in

QUEUED = ["gcloud", "compute", "tpus", "queued-resources"]
CONFIG = "configs/mosi.py:kinetics400"
CLOUD = dict(PROJECT="p", ZONE="z", NFS="10.0.0.2:/vol")


def tpu_commands(*words, **environment):
  command = ("bash", LAUNCH / "tpu_pod.sh", "--dry_run", CONFIG, *words)
  code, text, errors = run(*command, **CLOUD, **environment)
  assert code == 0, errors
  return commands(text)


def test_a_tpu_pod_is_made_used_and_deleted():
  create, mount, copy, install, train, check, delete = tpu_commands(
    "--config.data.data_dir=/mnt/shared/my data", TYPE="v6e-64"
  )
  assert create[:6] == [*QUEUED, "create", "mosi-kinetics400"]
  assert {"--zone=z", "--project=p", "--accelerator-type=v6e-64", "--spot"} < {*create}
  assert "--runtime-version=v2-alpha-tpuv6e" in create
  assert "10.0.0.2:/vol /mnt/shared" in mount[-1]
  assert copy[4] == "scp"
  copied = copy[
    copy.index("--recurse") + 1 : copy.index("mosi-kinetics400:motion_jax/")
  ]
  for path in copied:
    assert (ROOT / path).exists()
  assert '-c constraints.txt -e ".[tpu]"' in install[-1] and "constraints.txt" in copied
  for command in (mount, install, train):
    assert command[:6] == [*QUEUED[:3], "tpu-vm", "ssh", "mosi-kinetics400"]
    assert "--worker=all" in command
  inner = shlex.split(train[-1].removeprefix("--command="))
  assert inner[-6:] == [
    "-m", "motion_jax.main", f"--config={CONFIG}",
    "--workdir=/mnt/shared/runs/mosi-kinetics400",
    "--config.data.data_dir=/mnt/shared/data",
    "--config.data.data_dir=/mnt/shared/my data",
  ]  # fmt: skip
  assert "--worker=0" in check
  assert "/mnt/shared/runs/mosi-kinetics400/summary.json" in check[-1]
  assert delete[:6] == [*QUEUED, "delete", "mosi-kinetics400"]


def test_a_working_directory_names_its_tpu_and_is_looked_at_for_the_end():
  create, *_, train, check, _ = tpu_commands(
    WORKDIR="/mnt/shared/a b/Seed_1", SPOT="no"
  )
  assert create[5] == "seed-1" and "--spot" not in create
  inner = shlex.split(train[-1].removeprefix("--command="))
  assert inner[-2] == "--workdir=/mnt/shared/a b/Seed_1"
  words = shlex.split(check[-1].removeprefix("--command="))
  assert "/mnt/shared/a b/Seed_1/summary.json" in words


@pytest.mark.parametrize(
  ("config", "workdir", "told"),
  [
    (CONFIG, "runs/a", "WORKDIR=runs/a is not below /mnt/shared"),
    ("/configs/a.py", "", "is not in configs/"),
    ("configs/mossi.py:ucf101", "", f"does not exist in {ROOT}; if the folder is"),
  ],
)
def test_what_the_hosts_cannot_see_is_refused(config, workdir, told):
  command = ("bash", LAUNCH / "tpu_pod.sh", "--dry_run", config)
  code, text, errors = run(*command, WORKDIR=workdir)
  assert (code, text) == (2, "")
  assert told in errors


def test_the_repository_is_told_as_a_shell_reads_it(tmp_path):
  path = stand_in(tmp_path / "bin", "realpath", "exit 127")  # as on an older macOS
  folder = tmp_path / "my code"
  shutil.copytree(LAUNCH, folder / "launch")
  command = ("bash", folder / "launch" / "tpu_pod.sh", "--dry_run", "configs/none.py")
  code, _, errors = run(*command, PATH=path)
  assert code == 2
  assert shlex.split(errors)[-2:] == ["cd", str(folder)]


@pytest.mark.parametrize(
  ("kind", "runtime"),
  [
    ("v4-128", "tpu-ubuntu2204-base"),
    ("v5litepod-64", "v2-alpha-tpuv5-lite"),
    ("v5p-128", "v2-alpha-tpuv5"),
  ],
)
def test_every_kind_of_tpu_has_its_software(kind, runtime):
  create, *_ = tpu_commands(TYPE=kind)
  assert {f"--accelerator-type={kind}", f"--runtime-version={runtime}"} < {*create}
  create, *_ = tpu_commands(TYPE=kind, RUNTIME="newer")
  assert "--runtime-version=newer" in create


@pytest.mark.parametrize(
  ("environment", "told"),
  [
    ({"TYPE": "v5e-64"} | CLOUD, "gcloud calls it v5litepod-64"),
    ({"TYPE": "v9-64"} | CLOUD, "set RUNTIME"),
    ({"NFS": "n"}, "put before the command: PROJECT=... ZONE=... ("),
  ],
)
def test_what_a_request_lacks_is_told_at_once(environment, told):
  code, text, errors = run("bash", LAUNCH / "tpu_pod.sh", CONFIG, **environment)
  assert (code, text) == (2, "")
  assert told in errors


# For root, who may write anywhere, the bits of a folder count as well.
BITS = """
test() {
  if [ "$1" = -w ]; then find "$2" -prune -perm -200 | grep -q .; else [ "$@" ]; fi
}
"""


@pytest.mark.parametrize(
  ("folders", "refused"),
  [
    ({"": 0o555}, ""),
    ({"": 0o555, "/my runs": 0o755}, None),
    ({"": 0o755, "/my runs": 0o555}, "/my runs"),
    ({"": 0o555, "/my runs": 0o555, "/my runs/a": 0o755}, None),
    ({"": 0o755}, None),
  ],
)
def test_where_hosts_may_not_write_is_told(folders, refused, tmp_path):
  _, mount, *_ = tpu_commands(WORKDIR="/mnt/shared/my runs/a/b")
  for name in ("sudo", "mountpoint"):
    path = stand_in(tmp_path / "bin", name, "")
  share = f"{tmp_path}/share"
  for name in folders:
    os.mkdir(share + name)
  for name, mode in folders.items():
    os.chmod(share + name, mode)
  command = mount[-1].removeprefix("--command=").replace("/mnt/shared", share)
  code, _, errors = run("bash", "-c", f"{BITS}cd {tmp_path}; {command}", PATH=path)
  for name in folders:
    os.chmod(share + name, 0o755)
  assert (code, bool(errors)) == ((0, False) if refused is None else (2, True)), errors
  if errors:
    found = share + refused
    assert f"may not write to {found}; where root may: sudo chmod" in errors
    assert shlex.split(errors)[-1] == found


DISKS = "     /dev/sda\next4 /dev/sdb\nsquashfs /dev/loop0\n"


@pytest.mark.parametrize(
  ("disks", "there", "code", "mounted", "told"),
  [
    (DISKS, "shared", 0, ["/dev/sdb"], ""),
    (DISKS, "shared disk", 0, [], ""),  # a run that is taken up again
    ("     /dev/sda\n     /dev/sdb\n", "shared", 1, [], "has 0 disks"),
    (DISKS + "ext4 /dev/sdc\n", "shared", 1, [], "has 2 disks"),
  ],
)
def test_hosts_read_data_from_a_disk(disks, there, code, mounted, told, tmp_path):
  create, mount, *_, train, _, _ = tpu_commands(DISK="kinetics")
  source = "projects/p/zones/z/disks/kinetics"
  assert f"--data-disk=source={source},mode=read-only" in create
  assert "--config.data.data_dir=/mnt/disk/data" in shlex.split(train[-1])
  stand_in(tmp_path / "bin", "lsblk", f"printf %b {shlex.quote(disks)}")
  known = f"case '{there}' in *${{2#/mnt/}}*) ;; *) false ;; esac"
  stand_in(tmp_path / "bin", "mountpoint", known)
  path = stand_in(tmp_path / "bin", "sudo", f"echo $* >> {tmp_path}/sudo")
  command = mount[-1].removeprefix("--command=")
  script = f"test() {{ true; }}; cd {tmp_path}; {command}"
  got, _, errors = run("bash", "-c", script, PATH=path)
  assert got == code and told in errors and bool(told) == bool(errors)
  done = (tmp_path / "sudo").read_text().splitlines()
  asked = [line for line in done if line.startswith("mount ")]
  assert asked == [f"mount -o ro,noload {disk} /mnt/disk" for disk in mounted]


def test_a_disk_without_data_is_wrong_input(tmp_path):
  _, mount, *_ = tpu_commands(DISK="kinetics")
  stand_in(tmp_path / "bin", "mountpoint", "")
  path = stand_in(tmp_path / "bin", "sudo", "")
  script = mount[-1].removeprefix("--command=").replace("/mnt/shared", str(tmp_path))
  code, _, errors = run("bash", "-c", f"cd {tmp_path}; {script}", PATH=path)
  assert (code, errors) == (2, "error: DISK has no folder data\n")
  create, mount, *_ = tpu_commands("--config.data.data_dir=/mnt/disk", DISK="kinetics")
  assert "has no folder data" not in mount[-1]
  create, mount, *_ = tpu_commands()
  assert "disk" not in " ".join([*create, *mount])


def test_a_disk_is_given_by_its_name():
  command = ("bash", LAUNCH / "tpu_pod.sh", "--dry_run", CONFIG)
  code, text, errors = run(*command, **CLOUD, DISK="projects/p/disks/a")
  assert (code, text) == (2, "")
  assert "DISK=projects/p/disks/a is not the name of a disk" in errors


# Of Google Cloud: `answers` has what the next descriptions say (the last one again and
# again), `creations`, `deletions` and `ends` the exit codes of making and deleting the
# TPU and of runs, `mounts`, `copies` and `installs` those of the steps before a run;
# `TERM` is a run during which the launcher is told to stop.
GCLOUD = r"""
cd {folder}
next() {{ # of a file of words
  read -r first rest < "$1" || true
  if [ -n "$rest" ]; then echo "$rest" > "$1"; fi
  echo "$first"
}}
case "$*" in
  *dataDisks*) next disks ;;
  *describe*)
    now=$(next answers)
    case $now in
      none) echo "ERROR: (describe) NOT_FOUND: Resource was not found." >&2; exit 1 ;;
      broken) echo "ERROR: credentials have expired" >&2; exit 1 ;;
      *) echo "Your active configuration is: [x]" >&2; echo "$now" ;;
    esac ;;
  *queued-resources\ create*) echo create >> log; exit "$(next creations)" ;;
  *queued-resources\ delete*) echo delete >> log; exit "$(next deletions)" ;;
  *mountpoint*) exit "$(next mounts)" ;;
  *scp*) exit "$(next copies)" ;;
  *uv\ venv*) exit "$(next installs)" ;;
  *motion_jax.main*)
    echo run >> log
    code=$(next ends)
    if [ "$code" = TERM ]; then kill -TERM $PPID; fi
    exit "${{code/TERM/143}}" ;;
esac
"""


STEPS = ("creations", "mounts", "copies", "installs", "ends", "deletions")


def on_cloud(folder, answers, *, disk="", **codes):
  """Launches a run; returns its exit code, what it did to the TPU, and stderr."""
  stand_in(folder / "bin", "sleep", "")
  path = stand_in(folder / "bin", "gcloud", GCLOUD.format(folder=folder))
  for name, words in {**dict.fromkeys(STEPS, "0"), "answers": answers, **codes}.items():
    (folder / name).write_text(words + "\n")
  (folder / "log").touch()
  command = ("bash", LAUNCH / "tpu_pod.sh", CONFIG)
  code, _, errors = run(*command, PATH=path, DISK=disk, **CLOUD)
  return code, (folder / "log").read_text().split(), errors


@pytest.mark.parametrize(
  ("answers", "steps"),
  [
    ("none ACTIVE", ["create", "run", "delete"]),
    ("ACTIVE", ["run", "delete"]),
    ("broken broken none CREATING broken ACTIVE", ["create", "run", "delete"]),
    ("SUSPENDING SUSPENDED none ACTIVE", ["delete", "create", "run", "delete"]),
    ("DELETING none ACTIVE", ["create", "run", "delete"]),
    ("FAILED none PROVISIONING ACTIVE", ["delete", "create", "run", "delete"]),
    ("none SUSPENDED DELETING none ACTIVE",
     ["create", "delete", "create", "run", "delete"]),
  ],
)  # fmt: skip
def test_whatever_state_a_tpu_is_in_the_run_gets_one(answers, steps, tmp_path):
  code, found, errors = on_cloud(tmp_path, answers)
  assert (code, found) == (0, steps), errors


@pytest.mark.parametrize(
  ("answers", "steps", "told"),
  [
    ("none FAILED", ["create"], "the request for mosi-kinetics400 has failed"),
    ("none PROVISIONING none", ["create"], "somebody has deleted the request"),
  ],
)
def test_a_request_that_comes_to_nothing_ends_the_waiting(
  answers, steps, told, tmp_path
):
  code, found, errors = on_cloud(tmp_path, answers)
  assert (code, found) == (1, steps)
  assert told in errors


DELETE = "delete mosi-kinetics400 --zone=z --project=p --force --quiet"


@pytest.mark.parametrize(
  ("answers", "deletions", "steps"),
  [
    ("broken", "0", []),
    ("none PROVISIONING broken", "0", ["create"]),
    ("ACTIVE", "1", ["run", "delete", "delete", "delete"]),
  ],
)
def test_a_tpu_that_may_still_be_billed_is_told(answers, deletions, steps, tmp_path):
  code, found, errors = on_cloud(tmp_path, answers, deletions=deletions)
  assert (code, found) == (75, steps)
  assert "mosi-kinetics400 may still be there, and billed" in errors
  assert DELETE in errors
  assert ("credentials have expired" in errors) == ("broken" in answers)


@pytest.mark.parametrize(
  ("answers", "creations", "code", "times"),
  [
    ("none none none ACTIVE", "1 1 0", 0, 3),
    ("none CREATING ACTIVE", "1", 0, 1),  # it was heard nevertheless
    ("none", "1", 75, 3),
  ],
)
def test_a_request_that_fails_is_made_again(answers, creations, code, times, tmp_path):
  found, steps, errors = on_cloud(tmp_path, answers, creations=creations)
  assert (found, steps.count("create")) == (code, times), errors
  assert ("cannot request" in errors) == (code == 75)


@pytest.mark.parametrize(
  ("disks", "code", "steps"),
  [
    ("a/disks/other;a/disks/kinetics", 0, ["run", "delete"]),
    ("a/disks/kinetics2", 2, []),
  ],
)
def test_a_tpu_without_the_disk_goes_on_as_it_is(disks, code, steps, tmp_path):
  got = on_cloud(tmp_path, "ACTIVE", disk="kinetics", disks=disks)
  assert got[:2] == (code, steps)
  assert code == 0 or "without this DISK: go on without it, or delete" in got[2]


def test_a_launcher_that_is_stopped_tells_of_the_tpu(tmp_path):
  code, steps, errors = on_cloud(tmp_path, "ACTIVE", ends="TERM")
  assert (code, steps) == (75, ["run"])
  assert "may still be there, and billed" in errors and DELETE in errors


@pytest.mark.parametrize(
  ("answers", "deletions"), [("ACTIVE", "1 1 0"), ("ACTIVE none", "1")]
)
def test_a_deletion_that_fails_is_tried_again(answers, deletions, tmp_path):
  code, found, errors = on_cloud(tmp_path, answers, deletions=deletions)
  assert code == 0, errors
  assert found == ["run"] + ["delete"] * len(deletions.split())


@pytest.mark.parametrize(
  ("ends", "code", "runs"),
  [("1", 1, 3), ("75", 75, 3), ("255 0", 0, 2), ("2", 2, 1), ("255 0 1", 0, 2)],
)
def test_what_fails_is_tried_three_times_and_wrong_input_once(
  ends, code, runs, tmp_path
):
  found = on_cloud(tmp_path, "ACTIVE", ends=ends)
  assert found[:2] == (code, ["run"] * runs + ["delete"]), found[2]
  assert "billed" not in found[2]


@pytest.mark.parametrize(
  ("codes", "code", "runs", "again"),
  [
    (dict(mounts="1 0"), 0, 1, 1),
    (dict(mounts="2"), 2, 0, 0),  # a share that may not be written to
    (dict(copies="2 0"), 0, 1, 1),
    (dict(installs="2 0"), 0, 1, 1),  # uv without a network
    (dict(installs="2"), 1, 0, 2),
  ],
)
def test_an_installation_that_fails_is_tried_again(codes, code, runs, again, tmp_path):
  found = on_cloud(tmp_path, "ACTIVE", **codes)
  assert found[:2] == (code, ["run"] * runs + ["delete"]), found[2]
  assert found[2].count("trying again") == again


@pytest.mark.parametrize("broken", ["sudo", "mkdir"])
def test_a_share_that_cannot_be_mounted_is_not_wrong_input(broken, tmp_path):
  _, mount, *_ = tpu_commands()
  (tmp_path / "motion_jax").mkdir()
  for name in ("sudo", "mkdir", "mountpoint"):
    path = stand_in(tmp_path / "bin", name, "exit 2" if name == broken else "")
  command = mount[-1].removeprefix("--command=")
  code, _, errors = run("bash", "-c", f"cd {tmp_path}; {command}", PATH=path)
  assert code == 1, errors


# In the place of Python: the first one runs until it is told to stop, and then saves.
PYTHON = """
trap 'echo saved >> log; exit' TERM
echo started >> log
if [ $(grep -c started log) = 1 ]; then while true; do sleep 0.1; done; fi
echo "$@" >> log
"""


def test_a_run_under_way_saves_and_stops_before_the_next(tmp_path):
  *_, train, _, _ = tpu_commands("--config.name=a 'b'")
  command = ("bash", "-c", train[-1].removeprefix("--command="))
  folder = tmp_path / "motion_jax"
  (folder / ".venv").mkdir(parents=True)
  stand_in(folder / ".venv" / "bin", "python", PYTHON)
  (folder / "run.pid").write_text("99999999")  # of one that has ended
  log = folder / "log"
  pipes = dict(cwd=tmp_path, stderr=subprocess.PIPE)
  with children.started(command, **pipes) as [first]:
    while not log.exists():
      assert first.poll() is None
      time.sleep(0.05)
    with children.started(command, **pipes) as [second]:
      assert first.wait(timeout=60) == 0
      errors = second.communicate(timeout=60)[1]
  assert second.returncode == 0, errors
  *stages, words = log.read_text().splitlines()
  assert stages == ["started", "saved", "started"]
  assert words.endswith(
    "--workdir=/mnt/shared/runs/mosi-kinetics400 "
    "--config.data.data_dir=/mnt/shared/data --config.name=a 'b'"
  )
