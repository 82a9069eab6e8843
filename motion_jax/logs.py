"""What a run tells: the console, metrics.jsonl, perf.jsonl, events for TensorBoard.

`metrics.jsonl` holds what the seed determines and nothing else, so two runs of one
config can be compared byte by byte; what the clock measures goes to `perf.jsonl`.
"""

import contextlib
import errno
import json
import logging
import os
import pathlib
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from motion_jax import progress

logger = logging.getLogger("motion_jax")

_MINUTE = 60.0
_MOST_WAIT = 0.1  # share of the time that data may take without a warning
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def to_console() -> None:
  """Shows the package's log lines on stderr; of other processes than 0, warnings."""
  handler = logging.StreamHandler(sys.stderr)
  index = jax.process_index()
  who = f" process {index}:" if index else ""
  handler.setFormatter(logging.Formatter(f"%(asctime)s{who} %(message)s", "%H:%M:%S"))
  logger.handlers = [handler]
  logger.setLevel(logging.WARNING if index else logging.INFO)
  logger.propagate = False
  # Orbax tells every thread's traceback of a full disk; what it raises says it, too.
  logging.getLogger("absl").addFilter(_is_no_full_disk)


def is_full_disk(error: BaseException | None) -> bool:
  """Whether an error, or what has caused it, is that a disk is full."""
  while error is not None:
    if getattr(error, "errno", None) in _DISK_FULL:
      return True
    # Of libraries that are not written in Python, only the text.
    if any(os.strerror(number) in str(error) for number in _DISK_FULL):
      return True
    error = error.__cause__ or error.__context__
  return False


class Logs:
  """Writes the scalars and pictures of one run; only process 0 touches the disk.

  Args:
    workdir: folder of the run.
    step: the step that training starts from; later rows of an interrupted run are
      dropped, since they will be written again.
  """

  def __init__(self, workdir: pathlib.Path, *, step: int):
    self._events = None
    if jax.process_index() == 0:
      for name in ("metrics.jsonl", "perf.jsonl"):
        _drop_rows_after(workdir / name, step)
      self._events = EventsWriter(str(workdir / "events"))
      if step:  # what is shown of later steps goes, too
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add_event(step + 1, session_log=start)
    self._workdir = workdir

  def metrics(self, step: int, values: Mapping[str, float]) -> None:
    """Appends what the seed determines, such as 'train/loss', to metrics.jsonl."""
    self._write("metrics.jsonl", step, values)

  def perf(self, step: int, values: Mapping[str, float]) -> None:
    """Appends what the clock measures, such as 'perf/data_wait', to perf.jsonl."""
    self._write("perf.jsonl", step, values)

  def pictures(self, step: int, folder: pathlib.Path) -> None:
    """Puts the .png files in a folder and below it into the events, by their names."""
    if not self._events:
      return
    for path in sorted(folder.rglob("*.png")):
      data = path.read_bytes()
      width, height = struct.unpack(">II", data[16:24])  # of PNG's first chunk
      name = path.relative_to(folder.parent).with_suffix("").as_posix()
      image = summary_pb2.Summary.Image(
        width=width, height=height, colorspace=3, encoded_image_string=data
      )
      value = summary_pb2.Summary.Value(tag=name, image=image)
      self._add_event(step, summary=summary_pb2.Summary(value=[value]))

  def close(self) -> None:
    if self._events:
      self._events.close()

  def _write(self, name, step, values):
    if not self._events:
      return
    with open(self._workdir / name, "a", encoding="utf-8") as file:
      file.write(json.dumps({"step": step, **values}) + "\n")
    scalars = [
      summary_pb2.Summary.Value(tag=key, simple_value=value)
      for key, value in values.items()
    ]
    self._add_event(step, summary=summary_pb2.Summary(value=scalars))

  def _add_event(self, step, **content):
    # At once and in this thread: tensorboardX's own dies of a full disk, and the run
    # then waits for it for ever.
    event = event_pb2.Event(step=step, wall_time=time.time(), **content)
    self._events.write_event(event)
    self._events.flush()


def read_rows(path: pathlib.Path) -> list[dict]:
  """The rows of a .jsonl file; a last line cut off by a crash is left out."""
  rows = []
  for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows


def write_json(path: pathlib.Path, value) -> None:
  """Writes JSON so that a crash leaves the old file or the new one; process 0 alone."""
  if jax.process_index() != 0:
    return
  temporary = path.with_suffix(".tmp")
  temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
  os.replace(temporary, path)


@contextlib.contextmanager
def long_work(doing: str, note: str):
  """Tells of something that is silent for long: before, each minute of it, and after.

  Args:
    doing: 'compiling the train step'.
    note: how long it takes, and what else is to know.
  """
  logger.info("%s (%s)", doing, note)
  began, done = time.monotonic(), threading.Event()

  def tell():
    while not done.wait(_MINUTE):
      logger.info("still %s: %s", doing, duration_text(time.monotonic() - began))

  threading.Thread(target=tell, daemon=True).start()
  try:
    yield
  finally:
    done.set()
  logger.info("%s took %.1f s", doing, time.monotonic() - began)


class Progress:
  """Clips per second, share of time spent waiting for data, and time left.

  Args:
    total_steps: length of the training.
    clips_per_step: network inputs in one step.
    step: the step that training starts from.
  """

  def __init__(self, total_steps: int, clips_per_step: int, step: int):
    self._total_steps = total_steps
    self._clips_per_step = clips_per_step
    self._last_wait, self._warned = 0.0, False
    self._begin(step)

  @contextlib.contextmanager
  def waiting(self):
    """Counts what runs inside as waiting for data."""
    began = time.monotonic()
    yield
    self._waited += time.monotonic() - began

  @contextlib.contextmanager
  def pause(self):
    """Takes what runs inside (evaluation, saving) out of the speed."""
    began = time.monotonic()
    yield
    self._paused += time.monotonic() - began

  def measure(self, step: int) -> tuple[dict[str, float], str]:
    """Ends an interval at `step`; returns perf values and their text for a line."""
    seconds = max(1e-9, time.monotonic() - self._since - self._paused)
    steps = max(1, step - self._first)
    rate = steps * self._clips_per_step / seconds
    wait = min(1.0, self._waited / seconds)
    self._warn_of_wait(wait)
    left = duration_text((self._total_steps - step) * seconds / steps)
    self._begin(step)
    values = {"perf/clips_per_second": rate, "perf/data_wait": wait}
    return values, f"{rate:.1f} clips/s  data wait {wait:.0%}  left {left}"

  def _warn_of_wait(self, wait):
    least, self._last_wait = min(wait, self._last_wait), wait  # of two intervals
    if least > _MOST_WAIT and not self._warned:
      self._warned = True
      logger.warning(
        "%.0f %% of the time goes into waiting for data: more data.workers (processes) "
        "or data.threads may help, or data that are cheaper to decode, see "
        "docs/speed.md (told once)",
        100 * least,
      )

  def _begin(self, step):
    self._first, self._since = step, time.monotonic()
    self._waited = self._paused = 0.0


@contextlib.contextmanager
def progress_bar(total: int, text: str):
  """Shows how many of `total` videos are done, with the time left.

  Yields:
    A function that is given the number done so far.
  """
  options = dict(unit=" videos", leave=False, disable=jax.process_index() != 0)
  with progress.progress_bar(total=total, desc=text, **options) as bar:

    def show(done: int) -> None:
      bar.update(max(0, done - bar.n))

    yield show


def metrics_text(values: Mapping[str, float], names: Sequence[str]) -> str:
  """Those of `names` for a console line: 'loss 1.532  pretext_accuracy 0.412'."""
  return "  ".join(
    f"{name.removeprefix('train/')} {value:.4g}"
    for name, value in values.items()
    if name.rpartition("/")[2] in names
  )


def scores_text(values: Mapping[str, float]) -> str:
  """Scores as lines, 'retrieval_r1  0.213  (random initialisation 0.106)'."""
  lines = []
  for name, value in values.items():
    name = name.removeprefix("eval/")
    if name.startswith("random_init/"):
      continue
    beside = values.get(f"eval/random_init/{name}")
    note = "" if beside is None else f"  (random initialisation {beside:.3f})"
    lines.append(f"  {name:24s}{value:.3f}{note}")
  return "\n".join(lines)


def duration_text(seconds: float) -> str:
  """Seconds as '42s', '3m05s' or '2h10m'."""
  seconds = round(seconds)
  if seconds < 60:
    return f"{seconds}s"
  minutes, seconds = divmod(seconds, 60)
  if minutes < 60:
    return f"{minutes}m{seconds:02d}s"
  return f"{minutes // 60}h{minutes % 60:02d}m"


def _drop_rows_after(path, step):
  rows = [row for row in read_rows(path) if row["step"] <= step] if step else []
  temporary = path.with_suffix(".tmp")
  temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
  os.replace(temporary, path)


def _is_no_full_disk(record):
  return not (record.exc_info and is_full_disk(record.exc_info[1]))
