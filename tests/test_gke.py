"""The launcher for GKE: what it applies, and that its image has what that runs."""

import re

import yaml
from conftest import ROOT
from test_launch import LAUNCH, run
from test_unfinished import stand_in

CONFIG = "configs/mosi.py:kinetics400"
SET = dict(IMAGE="r:5000/motion_jax:1", CLAIM="films")
OVERRIDES = ("--config.name=it's & [x], ${NAME}", "--config.seed=1")


def gke(*words, **environment):
  code, text, errors = run("bash", LAUNCH / "gke.sh", *words, **environment)
  assert code == 0, errors
  return text


def test_a_job_set_starts_a_pod_per_host():
  text = gke("--dry_run", CONFIG, *OVERRIDES, **SET)
  command, *lines, end = text.splitlines()
  assert (command, end) == ("kubectl apply -f - <<'END'", "END")
  found = yaml.safe_load("\n".join(lines))
  assert found["kind"] == "JobSet"
  assert found["metadata"]["name"] == "mosi-kinetics400"
  job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert job["parallelism"] == job["completions"] == 4
  assert job["completionMode"] == "Indexed"
  pod = job["template"]["spec"]
  [container] = pod["containers"]
  assert container["image"] == SET["IMAGE"]
  assert container["command"] == [
    "python", "launch/attended.py", "python", "-m", "motion_jax.main",
    f"--config={CONFIG}", "--workdir=/mnt/shared/runs/mosi-kinetics400",
    "--config.data.data_dir=/mnt/shared/data",
  ]  # fmt: skip
  assert container["args"] == [*OVERRIDES]
  chips = {"google.com/tpu": 4}
  assert container["resources"] == {"limits": chips, "requests": chips}
  # Of libtpu, and of JAX's coordinator on TPUs.
  assert container["ports"] == [{"containerPort": 8471}, {"containerPort": 8482}]
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
    "cloud.google.com/gke-tpu-topology": "4x4",
  }
  [volume], [mount] = pod["volumes"], container["volumeMounts"]
  assert mount == {"name": volume["name"], "mountPath": "/mnt/shared"}
  assert volume["persistentVolumeClaim"] == {"claimName": "films"}
  # A checkpoint is saved in the meantime: Kubernetes alone would wait for 30 s.
  assert pod["terminationGracePeriodSeconds"] >= 120
  assert pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0
  # Wrong input, exit code 2, is not tried a hundred times.
  [rule] = job["podFailurePolicy"]["rules"]
  assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
  policy = found["spec"]["failurePolicy"]
  assert {*policy} <= {"maxRestarts", "restartStrategy", "rules"}
  [rule] = policy["rules"]
  # What the controller asks of a rule's name, which it must have.
  assert re.fullmatch("[A-Za-z](?:[A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
  assert rule["action"] == "FailJobSet"
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
  assert {*rule} <= {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"}


def test_a_job_set_is_applied_as_it_was_printed(tmp_path):
  path = stand_in(
    tmp_path, "kubectl", f"echo $* > {tmp_path}/words; cat > {tmp_path}/yaml"
  )
  environment = dict(WORKDIR="/mnt/shared/a/Seed_1", TOPOLOGY="2x4", HOSTS="2", **SET)
  printed = gke("--dry_run", CONFIG, **environment)
  gke(CONFIG, **environment, PATH=path)
  assert (tmp_path / "words").read_text() == "apply -f -\n"
  applied = (tmp_path / "yaml").read_text()
  assert printed == f"kubectl apply -f - <<'END'\n{applied}END\n"
  found = yaml.safe_load(applied)
  assert found["metadata"]["name"] == "seed-1"
  assert "--workdir=/mnt/shared/a/Seed_1" in applied
  assert "${" not in applied


def test_a_job_set_needs_an_image_a_whole_slice_and_a_shared_folder():
  command = ("bash", LAUNCH / "gke.sh")
  code, _, errors = run(*command, CONFIG)
  assert code == 2 and "put before the command: IMAGE=... CLAIM=..." in errors
  code, text, errors = run(*command, "--dry_run", CONFIG, TOPOLOGY="4x8")
  assert (code, text) == (2, "")
  assert "HOSTS=4 x CHIPS=4 are not the chips of TOPOLOGY=4x8" in errors
  code, text, errors = run(*command, "--dry_run", CONFIG, WORKDIR="runs/a")
  assert (code, text) == (2, "")
  assert "WORKDIR=runs/a is not below /mnt/shared" in errors


def test_the_image_has_what_a_job_set_runs():
  text = (LAUNCH / "Dockerfile").read_text()
  copied = {
    word for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for word in line.split()
  }
  needed = {
    "setup.py",
    "README.md",
    "constraints.txt",
    "motion_jax",
    "configs",
    "launch",
  }
  assert copied == needed
  assert all((ROOT / path).exists() for path in copied)
  assert "-c constraints.txt -e '.[tpu]'" in text
