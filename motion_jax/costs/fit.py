"""Which batch of a recipe fits into a device, found by compiling it."""

import logging
from collections.abc import Callable

from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.costs.ahead import compile_for, prepared
from motion_jax.costs.measures import abstract_step, sized
from motion_jax.costs.topology import Topology

logger = logging.getLogger("motion_jax")

_TRIES = 8  # compilations of one search
_FINE = 16  # a search ends within a 16th of the answer
_AIM = 0.97  # share of the memory that the next try is to need
_GROWTH = 64  # at most so many times the rows that are known to fit are tried


def fit(topology: Topology, config: ConfigDict) -> dict:
  """Finds the largest batch, and how the recipe's own batch fits.

  Args:
    topology: the devices.
    config: a whole config; it stays as it is.

  Returns:
    `largest_rows_per_device`, `largest_batch_size`: in one part, without `model.remat`
    (0: not even one row fits). `settings`: with which the recipe's own batch, or the
    next larger one that the devices divide, fits: {key: value}; None: nothing helps.
    `tries`: what was compiled for it.
  """
  search, devices = _Search(topology, prepared(config)), topology.mesh.size
  unit = search.unit()
  rows = -(-config.train.batch_size // (devices * unit)) * unit
  most = unit * largest(
    rows // unit, lambda units: search.compiled(units * unit), topology.capacity
  )
  return {
    "config": config.name,
    "topology": f"{topology.name}: {devices} x {topology.kind}",
    "largest_rows_per_device": most,
    "largest_batch_size": most * devices,
    "settings": search.settings(rows, most),
    "tries": search.tries,
  }


def largest(
  rows: int, compiled: Callable[[int], tuple[bool, float | None]], capacity: float
) -> int:
  """The most rows that fit, to within a 16th.

  Args:
    rows: that are tried first.
    compiled: tells whether so many rows fit, and the GiB that they need: where they do
      not fit a part of these, or None.
    capacity: GiB that there are.

  Returns:
    0 if one row does not fit.
  """
  low, high, known = 0, None, {}
  for _ in range(_TRIES):
    fits, needed = compiled(rows)
    if needed is not None:
      known[rows] = needed
    if fits:
      low = max(low, rows)
    else:
      high = rows if high is None else min(high, rows)
    least = max(1, low // _FINE)
    if high is not None and high - low <= least:
      break
    otherwise = 2 * low if high is None else (low + high) // 2
    guess = _guess(known, _AIM * capacity, otherwise)
    rows = max(guess, low + least)
    rows = min(rows, _GROWTH * low if high is None else high - 1)
  return low


def _guess(known, capacity, otherwise):
  """Rows that fill the memory: it grows in proportion to them, beside a fixed part."""
  pairs = sorted(known.items(), key=lambda item: abs(item[1] - capacity))[:2]
  if len(pairs) < 2 or pairs[0][1] == pairs[1][1]:
    return int(pairs[0][0] * capacity / pairs[0][1]) if pairs else otherwise
  (rows, size), (other, other_size) = pairs
  slope = (size - other_size) / (rows - other)
  return int(rows + (capacity - size) / slope) if slope > 0 else otherwise


class _Search:
  """Compiles variants of a recipe, and keeps what came of it."""

  def __init__(self, topology, config):
    self._topology, self._config, self.tries = topology, config, []

  def unit(self):
    """Rows of which a device must have a multiple."""
    for rows in range(1, _FINE):
      try:
        abstract_step(self._sized(rows), self._topology.mesh)
        return rows
      except UserError as error:
        reason = error
    raise reason

  def settings(self, rows, most):
    """With which so many rows fit; `most` do in one part, without remat."""
    if rows <= most:
      return self._changed(rows)
    parts = [count for count in range(1, rows + 1) if rows % count == 0]
    few = [count for count in parts if rows / count <= most]
    tries = [(count, False) for count in few] + [(count, True) for count in parts]
    for count, remat in tries[:_TRIES]:
      if self.compiled(rows, count, remat)[0]:
        return self._changed(rows, count, remat)
    return None

  def compiled(self, rows, parts=1, remat=False):
    """Whether so many rows per device fit, and what is known of the GiB they need."""
    compiled = compile_for(self._topology, self._sized(rows, parts, remat))
    needed = compiled.gibibytes["needed"]
    told = {"fits": compiled.fits, "needed_gibibytes": needed}
    told |= {"compile_seconds": compiled.seconds}
    self.tries.append(self._changed(rows, parts, remat) | told)
    logger.info(
      "%d rows per device, in %d parts%s: %s of %.2f GiB, %s; compiled in %.0f s",
      *(rows, parts, ", remat" if remat else ""),
      "more" if needed is None else f"{needed:.2f}",
      self._topology.capacity,
      "fits" if compiled.fits else "does not fit",
      compiled.seconds,
    )
    return compiled.fits, needed

  def _sized(self, rows, parts=1, remat=False):
    config = self._config.copy_and_resolve_references()
    config.update_from_flattened_dict(self._changed(rows, parts, remat))
    return config

  def _changed(self, rows, parts=1, remat=False):
    """Overrides for so many rows per device: groups of BatchNorm keep their size."""
    found = sized(self._config, rows * self._topology.mesh.size)
    together = found["train.batch_size"] // parts
    most = max(1, found.get("model.bn_groups", 1) // parts)
    groups = next(n for n in range(most, 0, -1) if together % n == 0)
    own = {"train.accumulate_steps": parts, "model.remat": remat}
    return found | {"model.bn_groups": groups} | own
