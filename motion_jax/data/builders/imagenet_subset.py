"""A few ImageNet images of each class, the still images of MoSI (its sets S5 to S30).

The split `test` holds one more image of each class, for measuring on held-out sources.
"""

from __future__ import annotations

import pathlib

import numpy as np

from motion_jax.config import UserError, local_path
from motion_jax.data.builders import lists, plan
from motion_jax.data.files import IMAGE_SUFFIXES

_CLASSES = 1000


def make_plan(
  source: str, splits: str, allow_missing: bool, *, per_class: int, seed: int = 0
) -> plan.Plan:
  """Plans a subset of the training images of ImageNet.

  Args:
    source: folder with a folder of images for each class (wnid).
    splits: text file with a line `<wnid>/<image> [label]` for each image of the
      subset; empty for a random choice.
    allow_missing: also accepts classes with too few images.
    per_class: images of each class: 5, 10, 20, 30 in the paper.
    seed: of the random choice.

  Returns:
    The plan; ids are <wnid>/<image>.
  """
  if per_class < 1:
    raise UserError(f"--per_class is {per_class}; it must be at least 1")
  found = plan.find_media(source, IMAGE_SUFFIXES)
  names: dict[str, list[str]] = {}
  for stem in found:
    if "/" in stem:
      names.setdefault(stem.split("/")[-2], []).append(stem)
  if not names:
    raise UserError(
      f"--source: the images lie in {source} itself; expected a sub-folder of images "
      "for each class, as in n01440764/n01440764_18.JPEG"
    )
  classes = tuple(sorted(names))
  plan.check_count(f"classes in {source}", len(classes), _CLASSES, allow_missing)
  listed = _listed(splits) if splits else None
  items, missing = [], []
  for label, name in enumerate(classes):
    order = np.random.default_rng([seed, label]).permutation(sorted(names[name]))
    order = [str(stem) for stem in order]
    if listed is None:
      chosen = order[:per_class]
      missing += [f"{name}/?"] * (per_class - len(chosen))
    else:
      ends = {"/".join(stem.split("/")[-2:]): stem for stem in order}
      wanted = listed.pop(name, [])
      chosen = [ends[end] for end in wanted if end in ends]
      missing += [end for end in wanted if end not in ends]
    rest = [stem for stem in order if stem not in set(chosen)][:1]
    for split, stems in (("train", chosen), ("test", rest)):
      for stem in stems:
        key = "/".join(stem.split("/")[-2:])
        items.append(plan.Item(key, found[stem][0], label, split, found[stem][1]))
  missing += [end for ends in (listed or {}).values() for end in ends]
  items.sort(key=lambda item: item.split, reverse=True)
  return plan.Plan(tuple(items), classes, tuple(missing))


def _listed(path: str) -> dict[str, list[str]]:
  """Reads `<wnid>/<image>`, without the ending, by class."""
  listed: dict[str, list[str]] = {}
  columns = r"(\S*[^/\s])(?:\s+-?\d+)?", "wnid/image [label]"
  for (name,), _ in lists.read(local_path(path), *columns):
    parts = pathlib.PurePosixPath(name).with_suffix("").parts
    listed.setdefault(
      parts[-2] if len(parts) > 1 else parts[0].split("_")[0], []
    ).append("/".join(parts[-2:]))
  return listed
