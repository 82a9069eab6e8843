"""A sweep as an XManager experiment, with a stand-in for XManager."""

import json
import re
import sys

from conftest import ROOT
from test_launch import LAUNCH, commands, run

# What a launcher of local jobs calls, with the names and arguments of xmanager 0.8. A
# unit "runs" by making the report of its folder, and writes down what was asked of it.
XMANAGER = """
import contextlib, json, os, pathlib

def told(**what):
  with open(os.environ["ACCOUNT"], "a") as file:
    print(json.dumps(what), file=file)

class LocalSpec:
  pass

class Local:
  pass

class SequentialArgs:
  @classmethod
  def from_collection(cls, words):
    made = cls()
    made.words = [*words]
    return made

def binary(*, executor_spec, path):
  assert isinstance(executor_spec, LocalSpec)
  return path

class Job:
  def __init__(self, executable, executor=None, *, args):
    assert isinstance(executor, Local)
    self.command = [executable.removeprefix("packaged "), *args.words]

class Unit:
  def __init__(self, job):
    self.command = job.command

  async def wait_until_complete(self):
    told(ended=self.command)
    if "--config.seed=2" in self.command:
      raise RuntimeError("exit code 7")
    [folder] = [w.split("=", 1)[1] for w in self.command if w.startswith("--workdir=")]
    pathlib.Path(folder).mkdir(parents=True)
    pathlib.Path(folder, "summary.json").touch()

class Experiment:
  def package(self, specs):
    return [f"packaged {path}" for path in specs]

  async def add(self, job):
    told(started=job.command)
    return Unit(job)

@contextlib.asynccontextmanager
async def create_experiment(experiment_title):
  told(experiment=experiment_title)
  yield Experiment()
  if os.environ["AT_END"]:
    raise RuntimeError(os.environ["AT_END"])
"""
SWEEP = """
def sweep():
  for seed in (1, 2, 3, 4):
    yield "smoke", {"seed": seed}
"""


def launched(folder, *flags, **environment):
  """Calls the launcher; returns its exit code, output, and XManager's account."""
  package = folder / "modules" / "xmanager"
  package.mkdir(parents=True, exist_ok=True)
  (package / "__init__.py").touch()
  for name in ("xm", "xm_local"):
    (package / f"{name}.py").write_text("from xmanager.both import *")
  (package / "both.py").write_text(XMANAGER)
  (folder / "small.py").write_text(SWEEP)
  words = (f"--config={folder}/small.py", f"--root={folder}/runs", *flags)
  code, text, errors = run(
    *(sys.executable, LAUNCH / "xm_launch.py", *words),
    PYTHONPATH=str(package.parent), ACCOUNT=str(folder / "account"), **environment,
  )  # fmt: skip
  account = folder / "account"
  lines = account.read_text().splitlines() if account.exists() else []
  return code, text, errors, [json.loads(line) for line in lines]


def test_every_unfinished_run_is_a_unit_after_the_one_before(tmp_path):
  _, text, _, nothing = launched(tmp_path, "--dry_run", AT_END="")
  planned = commands(text)
  assert nothing == [] and len(planned) == 4
  finished = tmp_path / "runs" / "small-smoke-seed=3"
  finished.mkdir(parents=True)
  (finished / "summary.json").touch()
  code, text, errors, account = launched(tmp_path, "--xmanager", AT_END="a unit failed")
  assert "4 runs, 1 of them finished" in text
  assert account == [
    {"experiment": f"{tmp_path}/small.py"},
    *(
      {what: planned[index]} for index in (0, 1, 3) for what in ("started", "ended")
    ),
  ]  # fmt: skip
  failed = str(tmp_path / "runs" / "small-smoke-seed=2")
  assert code == 1
  assert f"{failed}: exit code 7" in errors
  assert "a unit failed" in errors and "Traceback" not in errors
  assert errors.splitlines()[-1] == f"not finished: {failed}"


def test_without_xmanager_the_launcher_says_how_to_get_it(tmp_path):
  broken = tmp_path / "xmanager.py"  # whether or not XManager is installed here
  broken.write_text("raise ImportError('no xmanager')")
  path = tmp_path / "small.py"
  path.write_text(SWEEP)
  command = (LAUNCH / "xm_launch.py", "--xmanager", f"--config={path}")
  code, _, errors = run(
    sys.executable, *command, f"--root={tmp_path}", PYTHONPATH=str(tmp_path)
  )
  assert code == 1
  command = "pip install -c launch/constraints-xmanager.txt -e '.[xmanager]'"
  assert f"{command} (no xmanager)" in errors
  assert "Traceback" not in errors


def test_its_versions_are_ours_but_where_it_needs_older_ones():
  ours, own = (pins(ROOT / name) for name in ("constraints.txt", CONSTRAINTS))
  other = {name for name in ours.keys() & own.keys() if ours[name] != own[name]}
  assert other <= {"certifi", "packaging", "protobuf", "python-dateutil"}
  assert own["xmanager"] == ["0.8.5.post1"]
  assert own["protobuf"][0].startswith("6.")
  missing = ours.keys() - own.keys()
  core = re.findall(r'"([\w-]+)>=', (ROOT / "setup.py").read_text().split("CORE")[1])
  assert not missing & {*core[: core.index("tqdm")]}


CONSTRAINTS = "launch/constraints-xmanager.txt"


def pins(path):
  """Versions by name, one for each Python."""
  found = {}
  for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.M):
    found.setdefault(name.lower().replace("_", "-"), []).append(version)
  return found
