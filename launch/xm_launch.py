"""A sweep as one experiment: the settings that a config file's `sweep()` lists.

  python launch/xm_launch.py --config=configs/mosi.py            all of them
  python launch/xm_launch.py --config=configs/mosi.py:hmdb51     those on hmdb51
  ... --config.data.data_dir=DIR    further overrides, for every run
  ... --dry_run                     only prints the commands
  ... --xmanager                    as an XManager experiment, in an environment of its
                                    own: see launch/constraints-xmanager.txt

Runs on this machine, one after the other, without Docker. Finished runs are not run
again and others resume, so the command may be interrupted (the run under way saves a
checkpoint; a second Ctrl-C kills it) and repeated. The folder of a run is named after
its settings, and after a digest of the overrides if there are any. XManager has no
executor for current TPU pods: there, use tpu_pod.sh or gke.sh.

Run with the local jobs of XManager 0.8.5.post1; the tests have a stand-in for it.
"""

import argparse
import asyncio
import dataclasses
import hashlib
import importlib.util
import pathlib
import re
import shlex
import sys

import attended


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of a sweep: its working directory and its command."""

  workdir: pathlib.Path
  command: list[str]

  @property
  def finished(self) -> bool:
    return attended.finished(self.workdir)


def main() -> int:
  options, overrides = _parse(sys.argv[1:])
  runs = sweep_runs(options, overrides)
  if options.dry_run:
    for run in runs:
      print(shlex.join(run.command))
    return 0
  waiting = [run for run in runs if not run.finished]
  print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished", flush=True)
  try:
    if options.xmanager:
      _as_experiment(options.config, waiting)
    else:
      _one_by_one(waiting)
  except KeyboardInterrupt:
    print("stopped; the same command goes on from here", file=sys.stderr)
    return 130
  failed = [str(run.workdir) for run in runs if not run.finished]
  if failed:
    print(f"not finished: {', '.join(failed)}", file=sys.stderr)
  return int(bool(failed))


def sweep_runs(options, overrides: list[str]) -> list[Run]:
  """The runs of a config file's sweep.

  Args:
    options: of the command line. `config` names the file, and after a colon the
      argument whose settings are wanted.
    overrides: further flags of every run.
  """
  path, _, wanted = options.config.partition(":")
  sweep = _sweep_of(pathlib.Path(path))
  words = {argument: None for argument, _ in sweep}
  runs = []
  for argument, settings in sweep:
    if wanted and argument != wanted:
      continue
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", options.module, f"--config={path}:{argument}"]
    name = _name(pathlib.Path(path).stem, argument, settings, overrides)
    workdir = pathlib.Path(options.root).expanduser() / name
    runs.append(Run(workdir, [*command, f"--workdir={workdir}", *flags, *overrides]))
  if not runs:
    sys.exit(f"error: {path} sweeps over {', '.join(words)}, not over {wanted!r}")
  return runs


def _one_by_one(runs):
  for number, run in enumerate(runs):
    log = run.workdir / "log.txt"
    print(f"[{number + 1}/{len(runs)}] {run.workdir}", flush=True)
    run.workdir.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
      code = attended.run(run.command, stdout=file, stderr=file)
    if code:
      print(f"ended with {code}; see {log}", file=sys.stderr, flush=True)
    elif not run.finished:  # a signal has stopped it; it would stop the rest, too
      return


def _as_experiment(config, runs):
  try:
    asyncio.run(_with_xmanager(config, runs))
  except RuntimeError as error:  # of XManager at its end, for a run that has failed
    print(error, file=sys.stderr)


async def _with_xmanager(config, runs):
  """One experiment with a work unit per run; XManager keeps the account."""
  try:
    from absl import flags
    from xmanager import xm, xm_local
  except ImportError as error:
    sys.exit(
      "error: --xmanager needs XManager: "
      f"pip install -c launch/constraints-xmanager.txt -e '.[xmanager]' ({error})"
    )
  flags.FLAGS(sys.argv[:1])  # XManager reads its own
  async with xm_local.create_experiment(experiment_title=config) as experiment:
    spec = xm.binary(executor_spec=xm_local.LocalSpec(), path=sys.executable)
    [executable] = experiment.package([spec])
    for run in runs:
      arguments = xm.SequentialArgs.from_collection(run.command[1:])
      job = xm.Job(executable, executor=xm_local.Local(), args=arguments)
      unit = await experiment.add(job)
      try:  # one after the other: they share the devices
        await unit.wait_until_complete()
      except RuntimeError as error:
        print(f"{run.workdir}: {error}", file=sys.stderr, flush=True)


def _sweep_of(path):
  if not path.is_file():
    sys.exit(f"error: {path} does not exist")
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "sweep"):
    sys.exit(f"error: {path} has no sweep(); run it with python -m motion_jax.main")
  return list(module.sweep())


def _name(stem, argument, settings, overrides):
  """Tells all runs apart: those of a sweep, and of two calls with other overrides."""
  parts = [stem, argument]
  parts += [f"{key.rpartition('.')[2]}={value}" for key, value in settings.items()]
  if overrides:
    values = {
      key: value for key, _, value in (word.partition("=") for word in overrides)
    }
    text = "\n".join(f"{key}={value}" for key, value in sorted(values.items()))
    parts.append(hashlib.sha256(text.encode()).hexdigest()[:8])
  return re.sub(r"[^\w.=,-]+", "_", "-".join(parts))


def _parse(arguments):
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--config", required=True, help="a config file with sweep()")
  add("--root", default="runs/sweep", help="folder of the working directories")
  add("--module", default="motion_jax.main", help="what is run")
  add("--dry_run", action="store_true", help="only print the commands")
  add("--xmanager", action="store_true", help="as an XManager experiment")
  options, overrides = parser.parse_known_args(arguments)
  for word in overrides:
    if not re.match(r"--config\..+=", word):
      parser.error(f"{word} is not of the form --config.KEY=VALUE")
    if word.startswith("--config.mode=") and word != "--config.mode=train":
      parser.error(f"{word}: a sweep trains; evaluate its runs one by one")
  return options, overrides


if __name__ == "__main__":
  sys.exit(main())
