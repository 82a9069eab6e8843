"""The one training loop: every method, pretraining or supervised, runs through it."""

import logging
import pathlib
import re
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from motion_jax import hosts, logs, optim, sharding, starting_point, state
from motion_jax.checkpoint import ENCODER_ONLY, Checkpoints
from motion_jax.config import UserError, choose, completed, difference
from motion_jax.data import pipeline
from motion_jax.data.inputs import training_sampler
from motion_jax.evaluate import HeldOut, final_test, open_sources, resolved
from motion_jax.flow_sets.prepare_flow import ensure_flow
from motion_jax.methods import make_method
from motion_jax.models.common import parameter_count
from motion_jax.plan import check_batch, make_plan
from motion_jax.report import write_report
from motion_jax.watch import LossWatch, Stopped, StopSignal

logger = logging.getLogger("motion_jax")

_RECORDS = "data.records:"  # a hash, which says nothing to a reader


def train(config: ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Trains as `config` says, from the last checkpoint in `workdir` if there is one.

  Args:
    config: see the files in `configs/`.
    workdir: writable folder of the run.

  Returns:
    What this call measured at the last step it came to, {'eval/<metric>': value};
    empty after a signal, or if nothing was left to do. summary.json has all.

  Raises:
    UserError: for data, settings or checkpoints that cannot be used, and for a loss
      that is no longer finite; that message has the step.
  """
  with StopSignal() as stop:
    try:
      run = Run(config, workdir, stop)
    except Stopped:
      # By this folder launchers tell what is to be started again.
      (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
      logger.info("stopped by a signal; the same command goes on from here")
      return {}
    stop.trains()
    try:
      values = run.loop(stop)
      run.checkpoints.wait()
      complete = run.is_complete()
    except BaseException as error:
      run.close(finish=not hosts.is_lost_contact(error))
      raise
    run.close()
  if stop.requested and not complete:
    logger.info("stopped by a signal; the same command goes on from here")
  elif jax.process_index() == 0:
    write_report(workdir, run.sources.train, run.parameters, run.config)
    run.save_results()
    run.logs.pictures(run.plan.total_steps, workdir / "figures")
  run.logs.close()
  return values


class Run:
  """What one training is made of, and its loop."""

  def __init__(self, config: ConfigDict, workdir: pathlib.Path, stop: StopSignal):
    with stop.part(interruptible=True):  # data that are not whole are made again
      self.sources = open_sources(config.data)
    config = resolved(config, self.sources)
    self.config, self.workdir = config, workdir
    self.mesh = sharding.make_mesh()
    check_batch(config, self.mesh.size)
    self.checkpoints = Checkpoints(
      workdir, keep=config.train.keep, best=config.train.best
    )
    if config.train.skip_damaged:
      self.checkpoints.skip_damaged()
    resumed = self.checkpoints.latest_step()
    if resumed is not None:
      self._check_same_config(resumed)
    self.method = make_method(config)
    self.method.check_training(self.mesh)
    if config.train.best:  # of the held-out examples: the test comes after saving
      names = [f"eval/{name}" for name in self.method.metrics.__annotations__]
      choose("train.best", config.train.best, names)
    self.plan = make_plan(config, examples=len(self.sources.train))
    with stop.part(interruptible=True):  # minutes, so settings come first
      hosts.first_process_first(lambda: ensure_flow(config))
    self._start_data()
    self.clips_per_step = config.train.batch_size * self.method.clips_per_example
    bad_files = hosts.own_file(workdir / "bad_files.txt")
    self.held_out = HeldOut(
      self.sources.heldout, self.method, config, self.mesh, bad_files
    )
    self._final_test = final_test(
      self.held_out, self.sources, self.method, config, self.mesh, workdir
    )
    with stop.part():
      self._init_state()
    if resumed is None and "init_from" in config:
      weights = (self.state.params, self.state.aux)
      places = state.state_shardings(self.method, self.mesh)
      params, aux = sharding.place(
        starting_point.load_into(config, self.method, *weights),
        (places.params, places.aux),
      )
      self.state = self.state.replace(params=params, aux=aux)
    if resumed is not None:
      self.state = self.checkpoints.restore(resumed, self.state, self.batches)
    self.first_step = resumed or 0
    if jax.process_index() == 0 and self.first_step < self.plan.total_steps:
      (workdir / "summary.json").unlink(missing_ok=True)  # of a run that was shorter
    logs.write_json(workdir / "config.json", config.to_dict())
    self.logs = logs.Logs(workdir, step=self.first_step)
    self._announce()
    with stop.part("compiling, which the next start need not do again"):
      self._compile()

  def loop(self, stop: StopSignal) -> dict[str, float]:
    """Trains until the last step or until `stop` is requested."""
    progress = logs.Progress(
      self.plan.total_steps, self.clips_per_step, self.first_step
    )
    losses = LossWatch()
    with progress.pause():
      values = self._make_up(stop)
    is_first = jax.process_index() == 0
    for step in range(self.first_step + 1, self.plan.total_steps + 1):
      if stop.requested and step == self.first_step + 1:  # nothing to save
        break
      with progress.waiting():
        rows = self._next_rows()
      if step == 1:
        with progress.pause():
          if is_first:  # of its own rows
            self._save_figures(rows)
            self.logs.pictures(step, self.workdir / "figures")
          hosts.barrier("drawn")
      batch = sharding.join_rows(self.mesh, rows)  # the one transfer of a step
      with jax.transfer_guard("disallow"):
        self.state, loss = self.train_step(self.state, batch)
        losses.add(step, loss)
      if self.plan.is_last(step) or step % self.config.train.log_every == 0:
        losses.check()
        self._log(step, *progress.measure(step))
      stop.after(step)
      with progress.pause():
        # Who sends signals has little patience: the next start makes up for these.
        is_due = self.plan.is_evaluation(step) and not stop.requested
        values = self._evaluate(step) if is_due else {}
        stopping = stop.requested  # once: a signal may come at any time
        if self.plan.is_checkpoint(step) or stopping:
          losses.check()
          config = self.config.to_dict()
          self.checkpoints.save(self.state, self.batches, config, values)
        if self._is_test(step) and not stopping:
          values |= self._test(step)  # can be long, so after the checkpoint
      if stopping:
        break
    return values

  def is_complete(self) -> bool:
    """Whether the checkpoint of the last step is written and all is measured."""
    last = self.plan.total_steps
    return self.checkpoints.latest_step() == last and not any(self._missing(last))

  def save_results(self) -> None:
    """Draws what the networks make of held-out examples; process 0 alone."""
    weights = (self.state.params, self.state.aux)
    # The networks lie on every device; of what is split, a device's part.
    own = jax.tree.map(lambda array: array.addressable_data(0), weights)
    batch = self.held_out.examples()
    self.method.save_results(self.workdir / "figures", *own, batch)

  def close(self, *, finish: bool = True) -> None:
    """Ends what runs in the background; `finish`: a checkpoint under way, too."""
    if self.config.data.workers:
      self.batches.close()
    if finish:
      self.checkpoints.close()

  def _check_same_config(self, step):
    stored = self.checkpoints.config(step)
    if stored.get(ENCODER_ONLY):
      raise UserError(
        f"{self.workdir} holds an encoder alone, nothing to go on with; choose another "
        "--workdir (configs/finetune.py starts from it by --config.init_from)"
      )
    current = completed(self.config.to_dict())
    rows = difference(stored, current)
    free = _free_settings(stored["data"], current["data"])
    rows = [row for row in rows if not re.match(f"({free}):", row)]
    rows = [
      "data: files were added, removed or renamed" if row.startswith(_RECORDS) else row
      for row in rows
    ]
    if rows and not self.config.train.allow_config_change:
      raise UserError(
        f"{self.workdir} holds a run with another config:\n  "
        + "\n  ".join(rows)
        + "\nchoose another --workdir, give the values that it had, or go on with the "
        "changes by --config.train.allow_config_change=True"
      )

  def _start_data(self):
    data, train = self.config.data, self.config.train
    source = self.sources.train
    sampler = training_sampler(self.config, source)
    self.batches = iter(
      pipeline.make_pipeline(
        source,
        sampler,
        batch_size=train.batch_size,
        seed=self.config.seed,
        threads=data.threads,
        workers=data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
      )
    )
    self.batch_shapes = {
      name: jax.ShapeDtypeStruct(
        (train.batch_size, *array.shape),
        array.dtype,
        sharding=sharding.split_rows(self.mesh),
      )
      for name, array in pipeline.empty_row(sampler).items()
    }
    bad_files = hosts.own_file(self.workdir / "bad_files.txt")
    self.bad_files = pipeline.BadFiles(
      source, bad_files, max_fraction=data.max_bad_fraction, sampler=sampler
    )

  def _init_state(self):
    config = self.config
    self.schedule = optim.learning_rate(
      base=config.optim.learning_rate,
      total_steps=self.plan.total_steps,
      warmup_steps=self.plan.warmup_steps,
      warmup_start=config.optim.warmup_start,
      drops=self.plan.drops,
    )
    optimizer = optim.make_optimizer(config.optim, self.schedule)
    init_key, self.step_key = jax.random.split(jax.random.key(config.seed))
    self.state = state.create(self.method, optimizer, init_key, self.mesh)
    self.parameters = parameter_count(self.state.params)
    self.train_step = state.make_train_step(
      self.method,
      optimizer,
      self.step_key,
      self.mesh,
      accumulate_steps=config.train.accumulate_steps,
    )
    self.empty_metrics = jax.jit(
      self.method.metrics.empty, out_shardings=sharding.replicated(self.mesh)
    )

  def _announce(self):
    config = self.config
    kind, count = jax.devices()[0].device_kind, jax.process_count()
    together = f", {count} processes" if count > 1 else ""
    logger.info("devices: %d x %s%s", self.mesh.size, kind, together)
    logger.info(
      "data: %s, %d to train on, %d held out",
      self.sources.train.name,
      len(self.sources.train),
      len(self.held_out),
    )
    logger.info("network: %s, %s parameters", config.model.name, f"{self.parameters:,}")
    logger.info(
      "batch: %d sources, %d clips; %d steps",
      config.train.batch_size,
      self.clips_per_step,
      self.plan.total_steps,
    )
    logger.info("workdir: %s", self.workdir)
    if self.first_step:
      logger.info("resumed at step %d", self.first_step)

  def _compile(self):
    if self.first_step >= self.plan.total_steps:
      return  # nothing left to train
    logger.info("compiling the train step (the next start takes it from the cache)")
    began = time.monotonic()
    self.train_step = self.train_step.lower(self.state, self.batch_shapes).compile()
    logger.info("compiled in %.1f s", time.monotonic() - began)
    hosts.barrier("compiled")

  def _next_rows(self):
    rows = next(self.batches)
    self.bad_files.update(rows)
    return rows

  def _save_figures(self, rows):
    """Draws what the first step trains on: the first of these rows."""
    if "extent" in rows:
      # Draws are made for a whole batch; of other processes' rows their number counts.
      repeats = (jax.process_count(), *[1] * (rows["extent"].ndim - 1))
      rows = {**rows, "extent": np.tile(rows["extent"], repeats)}
    batch, key = state.first_inputs(
      rows, self.step_key, accumulate_steps=self.config.train.accumulate_steps
    )
    self.method.save_figures(self.workdir / "figures", batch, key)

  def _log(self, step, perf, perf_text):
    computed = jax.device_get(self.state.metrics.compute())
    self.state = self.state.replace(metrics=self.empty_metrics())
    values = {f"train/{name}": float(value) for name, value in computed.items()}
    text = logs.metrics_text(values)
    values["train/learning_rate"] = float(self.schedule(step - 1))
    self.logs.metrics(step, values)
    self.logs.perf(step, perf)
    logger.info("step %d/%d  %s  %s", step, self.plan.total_steps, text, perf_text)

  def _is_test(self, step):
    return self._final_test is not None and self.plan.is_test(step)

  def _evaluate(self, step):
    values = self.held_out(self.state.params, self.state.aux)
    logger.info(
      "step %d/%d  %s", step, self.plan.total_steps, logs.metrics_text(values)
    )
    self.logs.metrics(step, values)
    return hosts.from_process_zero(values)

  def _test(self, step):
    values = self._final_test(self.state.params, self.state.aux)
    self.logs.metrics(step, values)
    return hosts.from_process_zero(values)

  def _missing(self, step):
    """Whether the evaluation and the test of a step, a row each, are to be made."""
    is_first = jax.process_index() == 0  # which writes them
    rows = logs.read_rows(self.workdir / "metrics.jsonl") if is_first else []
    names = [[*row] for row in rows if row["step"] == step]
    made = sum(any(name.startswith("eval/") for name in row) for row in names)
    made = hosts.from_process_zero({"made": made})["made"]
    return self.plan.is_evaluation(step) and made < 1, self._is_test(step) and made < 2

  def _make_up(self, stop):
    """Measures what a signal or a crash has left out at the resumed step."""
    step, values = self.first_step, {}
    evaluation, test = self._missing(step) if step else (False, False)
    if evaluation and not stop.requested:
      values |= self._evaluate(step)
    if test and not stop.requested:
      values |= self._test(step)
    return values


def _free_settings(stored: dict, current: dict) -> str:
  """A pattern of the settings in which a run may differ from what it was stored with.

  Args:
    stored, current: sections `data`.
  """
  free = r"train\.(allow_config_change|skip_damaged)|data\.(threads|workers)"
  if stored["name"] == current["name"] != "folder":
    free += r"|data\.(heldout_by|heldout_fraction|frame_folders)"  # of folders alone
  before = stored["records"]  # '' of older runs
  if not before:
    free += r"|data\.records"
  if before == current["records"] or (not before and jax.process_count() > 1):
    return f"{free}|{hosts.OWN_SETTINGS}"  # of the same records in another place
  return free if before else rf"{free}|data\.data_dir"
