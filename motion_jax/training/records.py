"""The records that a config names, alike in all processes, and what they make of it."""

from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data.datasets import NotPreparedError
from motion_jax.data.inputs import Sources, configured_sources
from motion_jax.data.labels import common_classes, warn_of_gaps
from motion_jax.scale import hosts


def open_sources(config: ConfigDict) -> Sources:
  """Opens both parts of a `data` section; of several processes, the same records.

  Raises:
    UserError: if there are no such data, or some processes see others.
  """
  try:
    sources = hosts.first_process_first(lambda: configured_sources(config))
  except NotPreparedError as error:
    if not config.get("flow"):
      raise
    raise UserError(
      f"{error}\nand then its motion (data.flow={config.flow}), as docs/data.md tells: "
      "python -m motion_jax.prepare flow --help"
    ) from error
  hosts.check_records((sources.train, sources.heldout))
  return sources


def with_records(config: ConfigDict, sources: Sources) -> ConfigDict:
  """A copy of a config that says which records its data are, and their classes.

  `data.records` is a hash of all names and labels: the same data in another place are
  the same. `method.classes` and `method.class_names` are of methods that have some.

  Raises:
    UserError: if labels are missing or do not fit; see `data.labels.common_classes`.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.data.records = hosts.digest_of_records((sources.train, sources.heldout))
  if "classes" in config.method:
    names = common_classes(sources.train, sources.heldout)
    warn_of_gaps(sources.train, sources.heldout)
    if config.method.classes not in (0, len(names)):
      raise UserError(
        f"method.classes={config.method.classes}, but {config.data.name} has "
        f"{len(names)}; leave it at 0"
      )
    config.method.classes = len(names)
    with config.unlocked():
      config.method.class_names = names
  return config
