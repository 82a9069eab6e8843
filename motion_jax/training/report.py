"""What a finished training leaves for its reader."""

import logging
import pathlib
import shlex

from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.data.inputs import Sources
from motion_jax.data.sources import DecodeError, Source, StorageFault
from motion_jax.training.bad_files import BadFiles
from motion_jax.training.verdict import verdict

logger = logging.getLogger("motion_jax")


def write_report(
  workdir: pathlib.Path,
  sources: Sources,
  parameters: int,
  method,
  options: ConfigDict,
  few: tuple[int, int] = (0, 0),
) -> None:
  """Writes summary.json and the curves; tells where the encoder is and what comes next.

  Args:
    workdir: of the run; only process 0 may write there.
    sources: what it was trained on, and what was held out.
    parameters: size of its networks.
    method: that has learned.
    options: of its evaluations: `max_videos` are what those of features take, or all.
    few: see `verdict`.
  """
  from motion_jax.visualize.curves import save_curves

  rows = logs.read_rows(workdir / "metrics.jsonl")
  bad_files = workdir / "bad_files.txt"
  summary = {key: value for row in rows for key, value in row.items()}
  summary["parameters"] = parameters
  summary["bad_files"] = len(BadFiles(sources.train, bad_files, max_fraction=1.0))
  logs.write_json(workdir / "summary.json", summary)
  figures = workdir / "figures"
  figures.mkdir(exist_ok=True)  # a method need not draw any
  save_curves(figures / "curves.png", rows)
  count, classes = len(sources.heldout), len(sources.heldout.classes or ())
  videos = min(count, options.get("max_videos", 0) or count)
  sizes = dict(videos=videos, classes=classes, few=few, chance=method.chance)
  lines = verdict(summary, method.headline, **sizes)
  predictions = workdir / "predictions.tsv"
  each = f"\n  of each video: {predictions}" if predictions.exists() else ""
  # Those held out have lines there, too; the summary counts what was trained on.
  listed = bad_files.read_bytes().count(b"\n") if bad_files.exists() else 0
  if listed:
    logger.warning("%d files could not be decoded: %s", listed, bad_files)
  logger.info(
    "done; all numbers are in summary.json\n%s\n"
    "  encoder: motion_jax.load_encoder(%r)%s\n  pictures: %s\n"
    "  curves: tensorboard --logdir %s  (pip install -c constraints.txt -e "
    "'.[tensorboard]')%s",
    "\n".join(lines),
    str(workdir),
    each,
    workdir / "figures",
    workdir,
    "".join(
      f"\n  next: {line}" for line in next_commands(workdir, sources.train, method)
    ),
  )


def next_commands(workdir: pathlib.Path, source: Source, method) -> list[str]:
  """Commands that tell and show what the run has learned; see `write_report`."""
  names = [] if method.evaluators else ["evaluate"]  # they end with it
  # The people of a detector's videos are not what the pictures are of.
  names += [] if "frame_map" in method.evaluators else ["visualize"]
  init_from = shlex.quote(f"--config.init_from={workdir}")
  # Images have no motion to be tested on.
  other = " --config.data.path=VIDEOS" if _has_images(source) else ""
  start = "python -m motion_jax.main --config=configs"
  found = [f"{start}/{name}.py {init_from}{other}" for name in names]
  run, path = (shlex.quote(str(x)) for x in (workdir, source.name))
  if "video_accuracy" in method.evaluators:  # classes of new videos
    extract = f"python -m motion_jax.extract --init_from={run}"
    found.insert(0, f"{extract} --path=NEW_VIDEOS --out=new.npz")
  if "evaluate" in names and not other and source.classes is None:
    # Without labels no evaluation tells more than the training has told.
    found[0] = f"python -m motion_jax.extract --init_from={run} --path={path}"
  if source.name == "synthetic_actions" and not method.evaluators:
    network = method.config.model.name
    found.append(f"{start}/finetune.py:{source.name},network={network} {init_from}")
  return found


def _has_images(source):
  try:
    return source[0].kind == "image"
  except (DecodeError, StorageFault, OSError):  # damaged, or gone
    return False
