"""Computes the motion that MoDist distils, for all videos of a data set or folder.

  python -m motion_jax.prepare flow --dataset=NAME_OR_FOLDER
    --method=raft --weights=raft-things.pth  (or --method=variational)

The motion of frame t is the optical flow from t to t - 5, in the first frames to frame
0; stored are its edges, or the flow itself. May be stopped at any time; the same
command goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.commands import command
from motion_jax.config import UserError, choose, local_path
from motion_jax.data import datasets, flow_files, flow_records, motion_codec
from motion_jax.data.disk import writing
from motion_jax.data.host import default_threads
from motion_jax.data.sources import Source, open_source
from motion_jax.flow_sets.batches import FLOWS, SOLVERS
from motion_jax.flow_sets.job import FlowJob
from motion_jax.models.raft import SIZES

logger = logging.getLogger("motion_jax")


def prepare_flow(
  name: str,
  *,
  method: str,
  weights: str = "",
  size: str = "",
  iterations: int = 0,
  store: str = "edges",
  interval: int = 5,
  short_side: int = 256,
  data_dir: str = "",
  batch_size: int = 8,
  threads: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> pathlib.Path:
  """Computes and stores the motion of all videos, or goes on with it.

  Several hosts that share `data_dir` divide the videos among them; the one that
  finishes last puts the parts together.

  Args:
    name: of a prepared data set, all splits of which are taken, or a folder; the others
      are what the flags of the command line tell.

  Returns:
    The folder of the motion set; it exists when all hosts are done.

  Raises:
    UserError: for wrong arguments, and if a set made otherwise is in the way.
  """
  choose("method", method, [*FLOWS])
  choose("kind of motion", store, [*motion_codec.CHANNELS])
  if min(interval, batch_size) < 1 or short_side < 16 or min(threads, iterations) < 0:
    raise UserError(
      f"interval={interval} and batch_size={batch_size} must be at least 1, short_side="
      f"{short_side} at least 16, threads={threads} and iterations={iterations} at "
      "least 0"
    )
  if not 0 <= process_index < process_count:
    raise UserError(f"process_index={process_index} of process_count={process_count}")
  source = open_source(name, split="all", data_dir=data_dir or None)
  target = flow_records.flow_folder(source, method, store, interval, data_dir)
  settings = {
    "version": flow_files.VERSION,
    "videos": len(source),
    "fingerprint": _fingerprint(source),
    "method": method,
    "weights": _digest(weights),
    "solver": _solver(method, size, iterations),
    "store": store,
    "limit": motion_codec.LIMITS[store],
    "interval": interval,
    "short_side": short_side,
  }
  options = {"batch_size": batch_size, "threads": threads or default_threads()}
  job = FlowJob(source, target, settings, weights, **options)
  alone = process_count == 1
  with writing(target.parent) if alone else contextlib.nullcontext():
    if job.is_finished():
      logger.info("prepared already: %s", target)
      return target
    job.work(process_index, process_count)
    with contextlib.nullcontext() if alone else writing(target.parent):
      job.finish()
  return target


def ensure_flow(data: ConfigDict, wanted: dict | None) -> None:
  """Makes the motion of the embedded videos when a run first needs it.

  Motion of other data sets takes too long to be made unasked; opening it then tells
  the command.

  Args:
    data: section of a config.
    wanted: from `Method.prepared_motion`.
  """
  if data.name.partition(":")[0] != datasets.EMBEDDED:
    return
  if not wanted or data.flow != "variational":
    return
  source = open_source(data.name, data_dir=data.data_dir or None)
  wanted = {**wanted, "method": data.flow}
  kind = {key: wanted[key] for key in ("method", "store", "interval")}
  if not flow_records.flow_folder(source, data_dir=data.data_dir, **kind).is_dir():
    logger.info("computing the motion of the embedded videos (once, minutes)")
    prepare_flow(data.name, **wanted, data_dir=data.data_dir)


def main(arguments: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  return command.run(lambda: _program(arguments), ["prepare flow"])


def _program(arguments):
  options = parse(arguments)
  logs.to_console()
  command.use_compilation_cache()
  command.keep_freed_memory()
  name = options.pop("dataset")
  try:
    path = prepare_flow(name, **options)
  except OSError as error:
    raise UserError(
      f"{error}; choose another --data_dir, or free some space"
    ) from error
  if path.is_dir():
    print(f"ready: {path}")


def parse(arguments: Sequence[str]) -> dict:
  """Arguments of `prepare_flow` from a command line; its `name` is called dataset.

  Raises:
    UserError: for unknown or missing flags.
  """
  parser = _Parser(
    prog="python -m motion_jax.prepare flow",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add, text = parser.add_argument, "name of a prepared data set, or a folder"
  add("--dataset", required=True, help=text)
  add("--method", required=True, choices=[*FLOWS])
  add("--weights", default="", help="file of RAFT's; from princeton-vl/RAFT")
  add("--size", default="", choices=[*SIZES], help="of RAFT; large without it")
  text = "of RAFT (0: 20) or the variational solver (0: 10)"
  add("--iterations", type=int, default=0, help=text)
  add("--store", default="edges", choices=[*motion_codec.CHANNELS])
  add("--interval", type=int, default=5, help="frames that the flow goes back")
  text = "larger videos are reduced to this many pixels, in which flow is measured"
  add("--short_side", type=int, default=256, help=text)
  add("--data_dir", default="", help="root of prepared data sets, as of `prepare`")
  add("--batch_size", type=int, default=8, help="frame pairs per device")
  add("--threads", type=int, default=0, help="videos decoded together; 0: by cores")
  add("--process_index", type=int, default=0, help="number of this host")
  add("--process_count", type=int, default=1, help="hosts that share the work")
  return vars(parser.parse_args(arguments))


class _Parser(argparse.ArgumentParser):
  def error(self, message):
    raise UserError(f"{message}\n{self.format_usage()}")


def _fingerprint(source: Source) -> str:
  """Hash of the identifiers."""
  names = "\n".join(sorted(map(source.id_of, range(len(source)))))
  return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()


def _solver(method: str, size: str, iterations: int) -> dict:
  """Settings of a method, of which a command line may change two."""
  solver = dict(SOLVERS[method])
  if size and "size" not in solver:
    raise UserError(f"size={size} is one of RAFT; method {method!r} has no sizes")
  if size:
    solver["size"] = choose("size", size, SIZES)
  return solver | ({"iterations": iterations} if iterations else {})


def _digest(weights: str) -> str:
  """Name and hash of a weights file; '' for none."""
  if not weights:
    return ""
  path = local_path(weights)
  try:
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
  except OSError as error:
    raise UserError(f"--weights: {error}") from error
