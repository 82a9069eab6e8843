"""Features of a folder of videos, as one .npz file, and what a classifier finds there.

  python -m motion_jax.extract --init_from=RUN --path=~/videos --out=videos.npz

The file has `features` [N, D] float32 (the mean over evenly spaced clips, of whose
frames the middle square is used, as in all evaluations of features), `ids` [N] (paths
in the folder, or identifiers of the data set), `labels` [N] (-1 unknown) and `classes`.
--stage=conv4 takes the mean and the deviation of an earlier stage. Of a fine-tuned
classifier the class of every video goes to a table beside it, here videos.tsv: the mean
of the probabilities of the clips decides (of one crop each; tests of three crops are
for configs/evaluate.py); with --stage there are no classes. Videos that cannot be
decoded are left out and named. Interrupted, the same command goes on where it was and
ends with the same file. On several hosts the same command runs once per host; each
decodes its share of the videos.
"""

import collections
import dataclasses
import functools
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx

from motion_jax import logs
from motion_jax.commands import command, processes
from motion_jax.config import UserError, local_path
from motion_jax.data import Source, open_source
from motion_jax.data.inputs import feature_views
from motion_jax.evaluation.features import FeatureExtractor, Features
from motion_jax.evaluation.parts import Parts, save_arrays
from motion_jax.evaluation.video_accuracy import write_predictions
from motion_jax.scale import hosts, sharding
from motion_jax.training.trained_encoder import TrainedEncoder, load_encoder

flags.adopt_module_key_flags(command)  # --help shows them, too
flags.adopt_module_key_flags(processes)
_INIT_FROM = flags.DEFINE_string("init_from", "", "Folder of a run, or a checkpoint.")
_PATH = flags.DEFINE_string("path", "", "Folder of videos, or a data set's name.")
_SPLIT = flags.DEFINE_string(
  "split", "all", "Or train, heldout: a tenth of each class."
)
_OUT = flags.DEFINE_string("out", "features.npz", "File to write.")
_CLIPS = flags.DEFINE_integer("clips", 10, "Clips per video; 0: all, no overlap.")
_INTERVAL = flags.DEFINE_integer(
  "interval", 0, "Frames between a clip's; 0: the run's."
)
_STAGE = flags.DEFINE_string("stage", "", "conv1 to conv5; '': the pooled features.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Clips encoded together.")
_THREADS = flags.DEFINE_integer("threads", -1, "That decode; -1: by the cores.")


def main() -> None:
  """Extracts as the flags say."""
  processes.join()
  logs.to_console()
  command.use_compilation_cache()
  command.keep_freed_memory()
  if not _INIT_FROM.value or not _PATH.value:
    raise UserError("give --init_from=RUN and --path=FOLDER")
  trained = load_encoder(_INIT_FROM.value)
  config = trained.config
  # Of frames that are spread over the whole video there is one clip.
  config.eval.clips = 1 if config.method.get("segments") else _CLIPS.value
  if _STAGE.value:
    config.eval.stage = _STAGE.value
  config.data.interval = _INTERVAL.value or config.data.interval
  config.data.threads = _THREADS.value
  out = local_path(_OUT.value)
  if out.suffix != ".npz":
    raise UserError(f"--out={out} must end in .npz")
  source = open_source(_PATH.value, split=_SPLIT.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  hosts.check_shared(out.parent)
  hosts.check_records((source,))
  extract(trained, source, out, batch_size=_BATCH_SIZE.value)


def extract(
  trained: TrainedEncoder, source: Source, out: pathlib.Path, *, batch_size: int
) -> None:
  """Writes the features of a source; see the module.

  Args:
    trained: the encoder; of its config, see `features.FeatureExtractor` and
      `inputs.feature_views`.
    source: the videos.
    out: file to write; finished parts wait in `<out>.parts` beside it.
    batch_size: clips per call.

  Raises:
    UserError: if the parts are of another job, or the table of classes would take the
      place of a file that is not of an earlier extraction.
  """
  about = trained.config.name, trained.step, len(source), trained.config.eval.clips
  logs.logger.info("encoder: %s, step %d; %d videos, of each %d clips (0: all)", *about)
  config, mesh = trained.config, sharding.make_mesh()
  views = feature_views(config)
  module, classes = trained.module, _classes(trained)
  table = out.with_suffix(".tsv")
  if classes:
    if table.exists() and not out.exists():
      raise UserError(
        f"{table} is there, where the classes would go, but no {out.name} of an "
        "earlier extraction; move it or choose another --out"
      )
    module = _Classified(module, *trained.classifiers)
  extractor = FeatureExtractor(module, config, mesh, batch_size)
  folder = out.with_name(out.name + ".parts")
  parts = Parts(folder, "extract", config, nnx.state(module), source)
  names = {path.name for path in folder.glob("[!.]*")}  # .nfs* come and go
  if hosts.everyones(names - {parts.folder.name})[0]:
    raise UserError(
      f"{folder} holds unfinished work of another encoder, folder or setting; delete "
      "it or choose another --out"
    )
  (found,) = extractor(
    [module],
    source,
    views,
    threads=config.data.threads,
    parts=parts,
    on_rows=functools.partial(_name_left_out, source),
  )
  if jax.process_index() == 0:
    if classes:
      found, scores = _without_scores(found, len(classes))
    _write(out, source, found)
    if classes:
      _write_classes(table, source, classes, found.positions, scores)
    shutil.rmtree(folder, ignore_errors=True)


class _Classified(nnx.Module):
  """Features with the probabilities that a classifier gives them behind."""

  def __init__(self, encoder: nnx.Module, classifier: nnx.Module):
    self.encoder, self.classifier = encoder, classifier

  def __call__(self, video: jax.Array) -> jax.Array:
    features = self.encoder(video)
    probabilities = jax.nn.softmax(self.classifier(features))
    return jnp.concatenate([features, probabilities], axis=-1)


def _classes(trained) -> tuple[str, ...]:
  """Names of what a classifier tells apart; of an earlier stage it tells nothing."""
  config = trained.config
  names = config.method.get("class_names", ()) if trained.classifiers else ()
  if names and config.eval.get("stage"):
    logs.logger.info("no table of classes: --stage takes features of an earlier stage")
    return ()
  return names


def _without_scores(found: Features, count: int) -> tuple[Features, np.ndarray]:
  features, scores = found.features[:, :-count], found.features[:, -count:]
  return dataclasses.replace(found, features=features), scores


def _write_classes(path, source, classes, positions, scores) -> None:
  write_predictions(path, source, classes, positions, scores)
  counts = collections.Counter(classes[row.argmax()] for row in scores)
  most = ", ".join(f"{count} {name}" for name, count in counts.most_common(5))
  logs.logger.info("%s has the class of each video: %s", path, most)


def _name_left_out(source: Source, rows: dict) -> None:
  for row in np.flatnonzero(~rows["valid"] & (rows["index"] >= 0)):
    name, reason = source.id_of(int(rows["index"][row])), rows["reason"][row]
    logs.logger.warning("left out %s: %s", name, reason.decode("utf-8", "replace"))


def _write(out: pathlib.Path, source: Source, found: Features) -> None:
  positions = found.positions.tolist()
  save_arrays(
    out,
    features=found.features,
    ids=np.asarray([source.id_of(position) for position in positions], str),
    labels=found.labels,
    classes=np.asarray(source.classes or (), str),
  )
  logs.logger.info(
    "%d of %d videos: %s has features [%d, %d], ids, labels and classes",
    *(len(positions), len(source), out, *found.features.shape),
  )


if __name__ == "__main__":
  sys.exit(command.run(main, sys.argv))
