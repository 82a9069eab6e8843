"""Builds a data set from files on disk.

  python -m motion_jax.prepare NAME --source=PATH [--splits=PATH] [--data_dir=PATH]

NAME is ucf101, hmdb51, kinetics400, something_something_v2, ava, aslan, yupenn,
imagenet_subset, video_folder, image_folder or synthetic_actions. May be stopped at any
time; the same command goes on from there.

  python -m motion_jax.prepare NAME --help     what its files and lists are called, of
                                               all but the last three
  python -m motion_jax.prepare flow --help     optical flow, for MoDist
"""

from __future__ import annotations

import inspect
import os
import pathlib
import re
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from motion_jax import config
from motion_jax.config import UserError
from motion_jax.data import datasets, media
from motion_jax.data.builders import (
  OFFICIAL,
  TOLERANT,
  base,
  folders,
  imagenet_subset,
  plan,
  shards,
  synthetic_actions,
)
from motion_jax.data.disk import check_same, data_root, writing
from motion_jax.data.sources import StorageFault
from motion_jax.training import interrupts

_SHOWN = 20  # damaged files named on the console

_FLAGS = {
  "source": flags.DEFINE_string("source", "", "Folder (or zip archive) of the media."),
  "splits": flags.DEFINE_string(
    "splits", "", "Folder of the official lists; of imagenet_subset a file, if any."
  ),
  "data_dir": flags.DEFINE_string(
    "data_dir", "", "Where to put it; default $TFDS_DATA_DIR or ~/tensorflow_datasets."
  ),
  "layout": flags.DEFINE_enum(
    "layout", "video", ["video", "frames"], "mp4, or JPEG frames (fast, but larger)."
  ),
  "short_side": flags.DEFINE_integer(
    "short_side", 256, "Videos are reduced to this many pixels.", lower_bound=16
  ),
  "workers": flags.DEFINE_integer("workers", 0, "Processes; 0 for one per core."),
  "folder_name": flags.DEFINE_string("name", "", "Name of a folder data set."),
  "per_class": flags.DEFINE_integer("per_class", 10, "Images of each ImageNet class."),
  "heldout_fraction": flags.DEFINE_float(
    "heldout_fraction", 0.1, "Test share of a folder."
  ),
  "allow_missing": flags.DEFINE_bool(
    "allow_missing", False, "Go on without listed files, unlike the official data set."
  ),
}

_FOLDERS = {
  "video_folder": ("The videos and frame folders of a folder.", ("video", "frames")),
  "image_folder": ("The images of a folder.", ("image",)),
}


def prepare(
  name: str,
  *,
  source: str,
  splits: str = "",
  data_dir: str = "",
  layout: str = "video",
  short_side: int = 256,
  workers: int = 0,
  folder_name: str = "",
  per_class: int = 10,
  heldout_fraction: float = 0.1,
  allow_missing: bool = False,
) -> pathlib.Path:
  """Builds a data set, or goes on where an earlier call was stopped.

  Args:
    name: the data set; the others are what the flags of the command line tell.

  Returns:
    The folder of the data set.

  Raises:
    UserError: if something is missing; the message has the fix.
  """
  root = data_root(data_dir)
  config.choose("data set", name, [*datasets.PREPARE, datasets.EMBEDDED])
  if name == datasets.EMBEDDED:
    return synthetic_actions.build(root)
  plan.require(source, "source", f"the media of {name}")
  variant = f"{layout}_{short_side}"
  if name in OFFICIAL:
    description = OFFICIAL[name].__doc__
    todo = OFFICIAL[name].make_plan(source, splits, allow_missing)
  elif name in _FOLDERS:
    description, kinds = _FOLDERS[name]
    variant = plan.require(folder_name, "name", "what the data set is to be called")
    if not re.fullmatch(r"[\w+-][\w.+-]*", variant):
      raise UserError(
        f"--name={variant} must be of letters, digits and _ . + - alone: it names a "
        "folder, and is given as --config.data.name=" + f"{name}:{variant}"
      )
    layout = "image" if kinds == ("image",) else layout
    todo = folders.make_plan(source, kinds, heldout_fraction)
  elif name == "imagenet_subset":
    description, variant, layout = imagenet_subset.__doc__, str(per_class), "image"
    todo = imagenet_subset.make_plan(source, splits, allow_missing, per_class=per_class)
  tolerant = allow_missing or name in TOLERANT
  plan.check_missing(todo, tolerant)
  origin = {}
  if name in _FOLDERS:
    path = os.path.realpath(config.local_path(source))
    origin = {"source": path, "layout": layout}
  dataset = base.Dataset(name, variant, layout, todo.classes, description)
  home = root / name
  job = shards.Job(
    dataset, home / f".building_{variant}_{layout}_{short_side}", short_side
  )
  target = home / variant / base.VERSION
  with writing(home):
    if target.is_dir():
      fix = f"choose another --name, or delete {target}"
      check_same(target, "metadata.json", origin, within="origin", fix=fix)
      logging.info("prepared already: %s", target)
    else:
      _build(job, todo, target, workers, name in OFFICIAL and not tolerant, origin)
  return target


def _build(job, todo, target, workers, strict, origin) -> None:
  """Encodes all records into shards, and makes the data set of them."""
  parts = plan.split_up(todo.items)
  made = shards.write_all(job, parts, workers=workers, strict=strict)
  damaged = {name: reason for part in made for name, reason in part["damaged"].items()}
  lost = {name for part in made for name in part["lost"]}
  for name, reason in list(damaged.items())[:_SHOWN]:
    logging.warning(
      "%s %s: %s", "left out" if name in lost else "damaged", name, reason
    )
  if len(lost) == len(todo.items):
    name, reason = next(iter(damaged.items()))
    raise UserError(f"none of the {len(lost)} files can be read; {name}: {reason}")
  if lost and strict:
    raise UserError(
      f"{len(lost)} of {len(todo.items)} files cannot be read, so this is not the "
      "official data set. Get these files again, or go on without them with "
      f"--allow_missing: {', '.join(sorted(lost)[:_SHOWN])}"
    )
  metadata = {
    "damaged": damaged,
    "origin": origin,
    "missing": list(todo.missing),
    "notes": dict(todo.notes),
  }
  shards.publish(job, parts, made, target, metadata)
  logging.info(
    "wrote %d records (%d left out, %d cut short) to %s",
    len(todo.items) - len(lost),
    len(lost),
    len(damaged) - len(lost),
    target,
  )


def main(argv: Sequence[str]) -> None:
  """Runs the command line."""
  media.set_up_opencv()
  try:
    if len(argv) != 2:
      raise UserError(f"expected one data set name.\n{__doc__}")
    with interrupts.answered(_answer):
      path = prepare(argv[1], **{name: flag.value for name, flag in _FLAGS.items()})
  except (UserError, StorageFault, OSError) as error:
    sys.exit(_explain(error))
  except KeyboardInterrupt:
    print(interrupts.GOES_ON, file=sys.stderr)
    sys.exit(130)
  print(f"ready: {path}")


def _answer():
  text = "stopping after the files under way; press Ctrl-C again to stop at once"
  print(f"\n{text}", file=sys.stderr, flush=True)


def _explain(error: Exception) -> int:
  print(f"error: {error}", file=sys.stderr)
  return 2


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line; --help and mistakes end the program with 0 and 2."""
  made = {**OFFICIAL, "imagenet_subset": imagenet_subset}
  named = [word for word in argv[1:] if word in made]
  if named and "--help" in argv:
    print(_formats(named[0], made[named[0]]))
    told = flags.FLAGS.module_help(sys.modules[__name__])
    print(f"Flags:\n{told.partition(':')[2]}")  # without the name of the module
    sys.exit(0)
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    sys.exit(_explain(error))
  except SystemExit:  # --help was printed
    sys.exit(0)


def _formats(name, builder):
  """The command that prepares a data set, and what its files are called."""
  text = inspect.getdoc(builder.make_plan).partition("\nReturns:")[0]
  text = text.replace("\nArgs:\n", "\n").strip()
  return f"{builder.__doc__}\n\n  {datasets.prepare_command(name)}\n\n{text}\n"


if __name__ == "__main__":
  if sys.argv[1:2] == ["flow"]:
    from motion_jax.flow_sets import (
      prepare_flow,  # loads JAX, which the others do not need
    )

    sys.exit(prepare_flow.main(sys.argv[2:]))
  app.run(main, flags_parser=parse_flags)
