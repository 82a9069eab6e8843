"""One run by several processes of this machine, for tests and debugging.

  python launch/local_processes.py --processes=2 --config=configs/mosi.py:smoke
  ... --devices=4                   devices of each process
  ... --dry_run                     only prints the commands

Everything else goes to `motion_jax.main`. The processes use the CPU, unless
JAX_PLATFORMS says otherwise; with JAX_PLATFORMS=cuda process 0 has the first --devices
GPUs, and so on. (One process alone, without this script, serves all of a machine.)
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

_PATIENCE_SECONDS = 60  # for the others when one has ended with an error


def main() -> int:
  options, rest = _parse(sys.argv[1:])
  environment, commands = plan(options, rest)
  if options.dry_run:
    settings = [f"{name}={value}" for name, value in environment.items()]
    for command in commands:
      print(shlex.join([*settings, *command]), "&")
    print("wait")
    return 0
  return run(commands, {**os.environ, **environment})


def plan(options, rest: list[str]) -> tuple[dict[str, str], list[list[str]]]:
  """(environment, command of each process)."""
  port = options.port or _free_port()
  shared = [
    *(sys.executable, "-m", options.module, *rest),
    f"--coordinator=127.0.0.1:{port}",
    f"--processes={options.processes}",
  ]
  environment = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
  if environment["JAX_PLATFORMS"] == "cpu":
    flag = f"--xla_force_host_platform_device_count={options.devices}"
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
  commands = [[*shared, f"--process_index={i}"] for i in range(options.processes)]
  if environment["JAX_PLATFORMS"] not in ("cpu", "tpu"):
    count = options.devices
    for index, command in enumerate(commands):
      own = map(str, range(index * count, (index + 1) * count))
      command[:0] = ["env", f"JAX_LOCAL_DEVICE_IDS={','.join(own)}"]
  return environment, commands


def run(commands: list[list[str]], environment: dict[str, str]) -> int:
  """Runs commands together; returns 0, or the exit code of the first that failed."""
  processes = [subprocess.Popen(command, env=environment) for command in commands]

  def forward(number, frame):
    for process in processes:
      process.send_signal(number)

  signal.signal(signal.SIGTERM, forward)
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all of them
  failed_at, code = None, 0
  while any(process.poll() is None for process in processes):
    time.sleep(0.1)
    ended = [process.returncode for process in processes if process.poll() is not None]
    if failed_at is None and any(ended):
      failed_at, code = time.monotonic(), next(filter(None, ended))
    if failed_at and time.monotonic() - failed_at > _PATIENCE_SECONDS:
      for process in processes:
        process.kill()
  return code or next((p.returncode for p in processes if p.returncode), 0)


def _parse(arguments):
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--processes", type=int, default=2)
  add("--devices", type=int, default=1, help="devices of each process")
  add("--port", type=int, default=0, help="of process 0; 0: any that is free")
  add("--module", default="motion_jax.main", help="what is run")
  add("--dry_run", action="store_true", help="only print the commands")
  options, rest = parser.parse_known_args(arguments)
  if not any(word.startswith("--config=") for word in rest):
    parser.error("--config is missing; try --config=configs/mosi.py:smoke")
  return options, rest


def _free_port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


if __name__ == "__main__":
  sys.exit(main())
