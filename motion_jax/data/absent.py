"""Data sets that need not be on this disk, for what follows from their sizes alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.box_rows import BoxRows
from motion_jax.data.sources import Source

# Training examples and classes; of data sets with several official splits, the first.
SIZES = {
  "ucf101": (9537, 101),
  "hmdb51": (3570, 51),
  "kinetics400": (240_000, 400),  # of the list's 246,000; MoDist, section 4
  "something_something_v2": (168_913, 174),
  "ava": (211_000, 0),  # key frames: SlowFast (Feichtenhofer et al., 2019), section 5
  "imagenet_subset": (10_000, 1000),
  "synthetic_actions": (640, 10),
}
# One box, of no key frame: a detector without boxes would be warned of.
_BOX = ["", 0.0, 0.0, 1.0, 1.0, 1, 1.0]


@dataclasses.dataclass(frozen=True)
class AbsentSource(Source):
  """Stands for records that nobody reads: samplers of it tell the shapes of a batch.

  Attributes:
    notes: those of an AVA without people.
  """

  notes: Mapping[str, Any] = dataclasses.field(repr=False, default_factory=dict)


def absent_source(config: ConfigDict) -> AbsentSource:
  """The training records of a config's `data` section.

  Nothing is opened. Records of a data set of the user's own are none, without classes.
  """
  name, _, variant = config.name.partition(":")
  examples, classes = SIZES.get(name, (0, 0))
  if name == "imagenet_subset" and variant.isdecimal():
    examples = classes * int(variant)
  examples = math.ceil(config.get("fraction", 1.0) * examples)
  if config.get("per_class", 0):
    examples = min(examples, classes * config.per_class)
  boxes = dict.fromkeys(("train", "val"), BoxRows.of([_BOX]))
  return AbsentSource(
    name=config.name,
    split="train",
    classes=tuple(map(str, range(classes))) or None,
    ids=range(examples),
    labels=range(0),
    notes={"boxes": boxes, "persons": boxes} if name == "ava" else {},
  )


def with_classes(config: ConfigDict) -> ConfigDict:
  """A copy of a whole config that has as many classes as its data set.

  Raises:
    UserError: if it is to have classes, and the data set is one of the user's own.
  """
  config = config.copy_and_resolve_references()
  if "classes" in config.method and not config.method.classes:
    config.method.classes = len(absent_source(config.data).classes or ())
    if not config.method.classes:
      raise UserError(
        f"no data are opened here, and the classes of {config.data.name} are not known "
        "without: say how many there are by --config.method.classes=10"
      )
  return config
