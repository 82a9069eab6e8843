"""Runs a command to its end, whatever Ctrl-C does, and knows finished trainings.

  python launch/attended.py python -m motion_jax.main --config=... --workdir=DIR

ends with 0 only when nothing is left to do: a training that a signal has stopped saves
and ends with 0, of which this makes 75 ("try again"). For whatever starts a program
again until it succeeds.
"""

import contextlib
import itertools
import pathlib
import signal
import subprocess
import sys
import time

UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h
_SEEN_SECONDS = 30  # network file systems may show process 0's summary late


def main() -> int:
  command = sys.argv[1:]
  workdir = _last(command, "workdir")
  if not workdir:
    print("usage: python launch/attended.py COMMAND... --workdir=DIR", file=sys.stderr)
    return 2
  code = run(command)
  if _last(command, "config.mode") not in ("", "train"):
    return code
  folder = pathlib.Path(workdir).expanduser()  # as motion_jax.main
  return code or (0 if _seen_finished(folder) else UNFINISHED)


def finished(workdir: pathlib.Path) -> bool:
  """Whether the training in a working directory has written its report."""
  return (workdir / "summary.json").exists()


def run(command: list[str], **options) -> int:
  """Runs a command, and waits for it even when asked to stop.

  The first Ctrl-C or SIGTERM is passed on: a run then saves its checkpoint and ends by
  itself. Another Ctrl-C kills it.

  Args:
    command: program and arguments.
    **options: of `subprocess.Popen`.

  Returns:
    Its exit code; -9, for instance, if signal 9 has ended it.

  Raises:
    KeyboardInterrupt: when it has ended, if it was asked to stop.
  """
  asked = 0
  process = None

  def stop(number, frame):
    nonlocal asked
    asked += number == signal.SIGINT or not asked
    if process is not None:
      # Not SIGINT: a terminal has sent that to the run, too, and two of them kill it.
      process.send_signal(signal.SIGKILL if asked > 1 else signal.SIGTERM)

  with _handled(stop):
    process = subprocess.Popen(command, **options)
    if asked:
      process.terminate()
    code = process.wait()
  if asked:
    raise KeyboardInterrupt
  return code


def _last(command, flag):
  """What a flag is in the end, '' without it; written in any way that absl takes."""
  value = ""
  for word, following in itertools.pairwise([*command, ""]):
    name, equals, rest = word.partition("=")
    if name in (f"-{flag}", f"--{flag}"):
      value = rest if equals else following
  return value


@contextlib.contextmanager
def _handled(handler):
  before = {
    number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield
  finally:
    for number, old in before.items():
      signal.signal(number, old)


def _seen_finished(workdir):
  patience = time.monotonic() + _SEEN_SECONDS
  while (workdir / "checkpoints").is_dir() and not finished(workdir):
    if time.monotonic() > patience:
      return False
    time.sleep(0.5)
  return True


if __name__ == "__main__":
  try:
    sys.exit(main())
  except KeyboardInterrupt:
    sys.exit(UNFINISHED)
