"""What the input pipeline gives, beside what the steps of the devices take."""

import contextlib
import time

from ml_collections import ConfigDict

from motion_jax.config import UserError
from motion_jax.data import host, pipeline
from motion_jax.data.clips import Sampler
from motion_jax.data.inputs import configured_source
from motion_jax.data.rows import empty_row, for_devices
from motion_jax.data.sources import Source
from motion_jax.methods import make_method

_MOST = 2**28  # bytes of the batches that are measured, to have several
_TIGHT = 1.25  # times the need: less, and every hiccup is waited for


def input_rate(config: ConfigDict, seconds: float) -> dict:
  """Sources per second of the input pipeline alone; None without the data set."""
  try:
    source = configured_source(config.data, "train")
    sampler = make_method(config).sampler("train", source)
  except UserError as error:
    return {"sources_per_second": None, "input_note": " ".join(str(error).split())}
  data = config.data
  options = {"threads": data.threads, "workers": data.workers}
  rate, _ = pipeline_rate(
    source, sampler, config.train.batch_size, seconds=seconds, **options
  )
  return {"sources_per_second": rate}


def input_costs(config: ConfigDict, seconds: float) -> dict:
  """What the input of a recipe takes of this machine, without any step.

  Args:
    config: the recipe; its training split is read.
    seconds: how long each measurement takes, the start-up not counted.

  Returns:
    sources_per_second: with the recipe's threads and workers, in batches of 256 MiB
      at most.
    host_cores: that this process may use.
    core_milliseconds_per_source: processor time, measured in threads alone.
    device_megabytes_per_source: that go to the devices.

  Raises:
    UserError: if there is no such data set.
  """
  source, data = configured_source(config.data, "train"), config.data
  sampler = make_method(config).sampler("train", source)
  row = empty_row(sampler)
  size = sum(array.nbytes for array in row.values())
  batch = max(1, min(config.train.batch_size, _MOST // size, len(source)))
  options = {"threads": data.threads, "workers": data.workers}
  planned = host.plan_input(size, batch, **options).workers
  rate, used = pipeline_rate(source, sampler, batch, seconds=seconds, **options)
  if planned:
    options["workers"] = 0
    _, used = pipeline_rate(source, sampler, batch, seconds=seconds, **options)
  return {
    "sources_per_second": rate,
    "host_cores": host.cores(),
    "core_milliseconds_per_source": 1e3 * used,
    "device_megabytes_per_source": sum(x.nbytes for x in for_devices(row).values())
    / 1e6,
  }


def verdict(costs: dict, need: float, cores: int = 0) -> dict:
  """Tells whether the input of a host keeps up with its devices.

  Args:
    costs: as `input_costs` gives them.
    need: sources per second that the devices of a host take.
    cores: of a host; 0: as many as this one has.

  Returns:
    host_sources_per_second_needed, host_cores_needed: of cores like these.
    input_rate_to_need: of `cores` cores.
    input: the same in words.
  """
  cores = cores or costs["host_cores"]
  each = costs["core_milliseconds_per_source"] / 1e3
  ratio = cores / each / need
  keeps = f"the devices of a host take {need:.0f} sources/s, which keep"
  return {
    "host_sources_per_second_needed": need,
    "host_cores_needed": need * each,
    "input_rate_to_need": ratio,
    "input": f"{in_words(ratio)}; {keeps} {need * each:.1f} of {cores} cores busy",
  }


def in_words(ratio: float) -> str:
  """What it means that the input gives so many times what the steps take."""
  if ratio < 1:
    return "input-bound: the devices wait"
  return "just enough input" if ratio < _TIGHT else "not input-bound"


def pipeline_rate(
  source: Source, sampler: Sampler, batch_size: int, *, seconds: float, **options
) -> tuple[float, float]:
  """The training input without a model.

  Args:
    source, sampler, batch_size, **options: as for `pipeline.make_pipeline`.
    seconds: how long to measure; the start-up is not counted.

  Returns:
    records per second, and seconds of processor time of this process for each.
  """
  stream = pipeline.make_pipeline(
    source, sampler, batch_size=batch_size, seed=0, **options
  )
  with contextlib.closing(iter(stream)) as batches:
    next(batches)
    records, start, used = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - start) < seconds or not records:
      next(batches)
      records += batch_size
  return records / elapsed, (time.process_time() - used) / records
