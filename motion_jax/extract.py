"""Features of a folder of videos, as one .npz file.

  python -m motion_jax.extract --init_from=runs/mosi --path=~/videos --out=videos.npz

The file has `features` [N, D] float32 (the mean over evenly spaced clips, of whose
frames the middle square is used, as in all evaluations), `ids` [N] (paths in the
folder, or identifiers of the data set), `labels` [N] (-1 unknown) and `classes`.
Videos that cannot be decoded are left out and named. Interrupted, the same command goes
on where it was and ends with the same file.
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys

import jax
import numpy as np
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.commands import command
from motion_jax.config import UserError, local_path
from motion_jax.data import Source, media, open_source
from motion_jax.data.inputs import feature_views
from motion_jax.data.subsets import Subset
from motion_jax.evaluation.features import FeatureExtractor
from motion_jax.scale import sharding
from motion_jax.training.trained_encoder import load_encoder

_INIT_FROM = flags.DEFINE_string("init_from", "", "Folder of a run, or a checkpoint.")
_PATH = flags.DEFINE_string("path", "", "Folder of videos, or a data set's name.")
_SPLIT = flags.DEFINE_string("split", "all", "Or train, heldout.")
_OUT = flags.DEFINE_string("out", "features.npz", "File to write.")
_CLIPS = flags.DEFINE_integer("clips", 10, "Clips per video; 0: all, no overlap.")
_INTERVAL = flags.DEFINE_integer(
  "interval", 0, "Frames between a clip's; 0: the run's."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Clips encoded together.")
_THREADS = flags.DEFINE_integer("threads", -1, "That decode; -1: by the cores.")

_PART = 64  # videos between two savings


def main() -> None:
  """Extracts as the flags say."""
  logs.to_console()
  command.use_compilation_cache()
  command.keep_freed_memory()
  if not _INIT_FROM.value or not _PATH.value:
    raise UserError("give --init_from=RUN and --path=FOLDER")
  trained = load_encoder(_INIT_FROM.value)
  config = trained.config
  config.eval.clips = _CLIPS.value
  config.data.interval = _INTERVAL.value or config.data.interval
  config.data.threads = _THREADS.value
  out = local_path(_OUT.value)
  if out.suffix != ".npz":
    raise UserError(f"--out={out} must end in .npz")
  source = open_source(_PATH.value, split=_SPLIT.value)
  extract(trained.module, config, source, out, batch_size=_BATCH_SIZE.value)


def extract(
  module, config: ConfigDict, source: Source, out: pathlib.Path, *, batch_size: int
) -> None:
  """Writes the features of a source; see the module.

  Args:
    module: an encoder in evaluation mode.
    config: of its run; see `features.FeatureExtractor` and `inputs.feature_views`.
    source: the videos.
    out: file to write; finished parts wait in `<out>.parts` beside it.
    batch_size: clips per call.

  Raises:
    UserError: if a settings file beside the parts says that they are of another job.
  """
  views = feature_views(config)
  extractor = FeatureExtractor(module, config, sharding.make_mesh(), batch_size)
  parts = out.with_name(out.name + ".parts")
  encoder = hashlib.sha256()
  for array in jax.tree.leaves(jax.device_get(nnx.split(module)[1])):
    encoder.update(array.tobytes())
  method, ratio = config.method, config.eval.crop_ratio
  pixels = dict(size=method.size, mean=method.mean, std=method.std, crop_ratio=ratio)
  settings = {**vars(views), **pixels, "batch_size": batch_size}
  _claim(parts, source, {"encoder": encoder.hexdigest(), **settings})
  with logs.progress_bar(len(source), "features") as show:
    for start in range(0, len(source), _PART):
      path = parts / f"{start:08d}.npz"
      if not path.exists():
        positions = range(start, min(start + _PART, len(source)))
        subset = Subset.of(source, positions)
        (found,) = extractor(
          [module],
          subset,
          views,
          threads=config.data.threads,
          on_batch=lambda batch, start=start: show(start + int(batch["index"].max())),
        )
        _save(path, features=found.features, positions=found.positions + start)
      show(min(start + _PART, len(source)))
  loaded = [dict(np.load(path)) for path in sorted(parts.glob("*.npz"))]
  positions = np.concatenate([part["positions"] for part in loaded])
  for bad in sorted({*range(len(source))} - {*positions.tolist()}):
    logs.logger.warning(
      "left out %s: %s", source.id_of(bad), media.diagnose(source[bad])
    )
  _save(
    out,
    features=np.concatenate([part["features"] for part in loaded]),
    ids=np.asarray([source.id_of(p) for p in positions], str),
    labels=np.asarray(source.labels, np.int32)[positions],
    classes=np.asarray(source.classes or (), str),
  )
  shutil.rmtree(parts)
  logs.logger.info("%d of %d videos: %s", len(positions), len(source), out)


def _claim(parts: pathlib.Path, source: Source, settings: dict) -> None:
  """Lets parts be used only by the job that made them."""
  names = "\n".join(map(source.id_of, range(len(source))))
  digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
  about = {**settings, "source": source.name, "videos": digest}
  text = json.dumps(about, indent=2, default=str) + "\n"
  parts.mkdir(parents=True, exist_ok=True)
  note = parts / "settings.json"
  if note.exists() and note.read_text() != text:
    raise UserError(
      f"{parts} holds unfinished work of another encoder, folder or setting; delete it "
      "or choose another --out"
    )
  note.write_text(text)


def _save(path: pathlib.Path, **arrays) -> None:
  """Writes an .npz that is there whole or not at all."""
  temporary = path.with_suffix(".tmp")
  with open(temporary, "wb") as file:
    np.savez(file, **arrays)
  os.replace(temporary, path)


if __name__ == "__main__":
  sys.exit(command.run(main, sys.argv))
