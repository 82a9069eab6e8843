"""The one training loop: every method, pretraining or supervised, runs through it."""

import contextlib
import logging
import pathlib
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from motion_jax import logs
from motion_jax.config import choose
from motion_jax.data import pipeline
from motion_jax.data.rows import empty_row, for_devices
from motion_jax.evaluation.evaluators import make_evaluators
from motion_jax.evaluation.online import Online, make_online
from motion_jax.evaluation.parts import remove_unfinished
from motion_jax.flow_sets.prepare_flow import ensure_flow
from motion_jax.methods import make_method
from motion_jax.models.common import parameter_count
from motion_jax.scale import hosts, sharding
from motion_jax.training import optim, starting_point, state
from motion_jax.training.announce import announce
from motion_jax.training.bad_files import BadFiles
from motion_jax.training.checkpoint import Checkpoints
from motion_jax.training.health import Health
from motion_jax.training.losses import LossWatch
from motion_jax.training.plan import check_batch, make_plan
from motion_jax.training.records import open_sources, with_records
from motion_jax.training.report import write_report
from motion_jax.training.resuming import check_resumable
from motion_jax.training.stopping import StopSignal

logger = logging.getLogger("motion_jax")


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
  values, complete = {}, False
  is_first, figures = jax.process_index() == 0, workdir / "figures"
  with StopSignal() as stop, contextlib.ExitStack() as opened:
    # Open and check: mistakes are told before anything takes long. A signal may
    # interrupt what the next start makes again or goes on with, data sets and motion.
    with stop.part(interruptible=True):
      sources = open_sources(config.data)
    config = with_records(config, sources)
    mesh = sharding.make_mesh()
    check_batch(config, mesh.size)
    checkpoints = opened.enter_context(_open_checkpoints(config.train, workdir))
    resumed = checkpoints.latest_step()
    if resumed is not None:
      check_resumable(checkpoints.config(resumed), config, workdir)
    method = make_method(config)
    method.check_training(mesh)
    if config.train.best:  # of the first evaluator: the others come after saving
      names = [f"eval/{name}" for name in method.metrics.__annotations__]
      choose("train.best", config.train.best, names)
    plan = make_plan(config, examples=len(sources.train))
    if is_first and (resumed or 0) < plan.total_steps:
      (workdir / "summary.json").unlink(missing_ok=True)  # of a run that was shorter
    with stop.part(interruptible=True):
      wanted = method.prepared_motion()
      hosts.first_process_first(lambda: ensure_flow(config.data, wanted))

    # Build. The seed and the step determine every random number, and the order of the
    # records: a position in the data is how many batches have been taken.
    sampler = method.sampler("train", sources.train)
    batches = opened.enter_context(_open_batches(config, sources.train, sampler))
    most = config.data.max_bad_fraction
    bad_files = BadFiles(sources.train, workdir / "bad_files.txt", most)
    where = sources, mesh, workdir
    held_out, *others = made = make_evaluators(method, config, *where)
    online = make_online(method, config, *where, made)
    often = [held_out, *online]
    schedule = optim.make_schedule(config.optim, plan)
    optimizer = optim.make_optimizer(config.optim, schedule)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    accumulate = dict(accumulate_steps=config.train.accumulate_steps)
    with stop.part():
      current = state.create(method, optimizer, init_key, mesh)
    train_step = state.make_train_step(method, optimizer, step_key, mesh, **accumulate)
    no_metrics = state.make_empty_metrics(method, mesh)

    # Restore; only a new run starts from other weights.
    if resumed is not None:
      current = checkpoints.restore(resumed, current, batches)
    elif "init_from" in config:
      current = _started(config, method, current, mesh)
    step = first_step = resumed or 0
    logs.write_json(workdir / "config.json", config.to_dict())
    log = logs.Logs(workdir, step=first_step)  # drops what comes again
    clips = config.train.batch_size * method.clips_per_example
    weights, steps = (current.params, current.aux), (first_step, plan.total_steps)
    announce(config, method, weights, sources, len(held_out), steps, workdir)

    # Compile ahead of the loop, in which nothing is traced, compiled or transferred
    # but what is asked for. Processes wait here for the slowest.
    with stop.part("compiling, which the next start need not do again"):
      if first_step < plan.total_steps:
        held_out.check(current.params, current.aux)
        train_step = compile_step(train_step, current, _shapes(config, sampler, mesh))

    def measure(evaluator):  # each makes a row of metrics.jsonl
      if step <= plan.eval_every or plan.is_last(step):
        logger.info("measuring %s", evaluator.what)
      measured = evaluator(current.params, current.aux)
      log.metrics(step, measured)
      remove_unfinished(workdir)
      if evaluator in often:
        text = logs.metrics_text(measured, (*method.headline, "online_knn_top1"))
        logger.info("step %d/%d  %s", step, plan.total_steps, text)
      health.check_encoder(step, measured)
      return hosts.from_process_zero(measured)

    stop.trains()
    health, losses = Health(plan.total_steps, method.chance), LossWatch()
    progress = logs.Progress(plan.total_steps, clips, first_step)
    with progress.pause():  # make up for what a signal or a crash has left unmeasured
      due = plan.due(step, often, others) if first_step else []
      for evaluator in _unmeasured(due, step, workdir):
        if not stop.requested:
          values |= measure(evaluator)
    for step in range(first_step + 1, plan.total_steps + 1):
      if stop.requested and step == first_step + 1:  # nothing to save
        break
      with progress.waiting():
        rows = bad_files.update(next(batches))
      if step == 1:
        with progress.pause():
          _draw_inputs(method, rows, step_key, accumulate, figures, log)
      batch = sharding.join_rows(mesh, rows)  # the one transfer of a step
      with jax.transfer_guard("disallow"):
        current, loss = train_step(current, batch)
        losses.add(step, loss)
      if plan.is_last(step) or step % config.train.log_every == 0:
        bad_files.settle()
        losses.check()
        row = jax.device_get(current.metrics.compute())
        health.check(step, row)
        _log(log, step, plan, row, method.headline, schedule, *progress.measure(step))
        current = current.replace(metrics=no_metrics())
      stop.after(step)
      with progress.pause():
        # Who sends signals has little patience: the next start makes up for these.
        due, values = [] if stop.requested else plan.due(step, often, others), {}
        for evaluator in due[:1]:  # before saving: `train.best` is one of its values
          values |= measure(evaluator)
        stopping = stop.requested  # once: a signal may come at any time
        if plan.is_checkpoint(step) or stopping:
          losses.check()
          checkpoints.save(current, batches, config.to_dict(), values)
        if stopping:
          break
        for evaluator in due[1:]:  # can be long, so after the checkpoint
          if not stop.requested:
            values |= measure(evaluator)
    checkpoints.wait()
    at_end = checkpoints.latest_step() == plan.total_steps
    complete = at_end and not _unmeasured([*often, *others], plan.total_steps, workdir)

  # From here on signals end the process as usual: all is saved.
  if stop.requested and not complete:
    # By this folder launchers tell what is to be started again.
    (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
    logger.info("stopped by a signal; the same command goes on from here")
    return values
  if is_first:
    # The networks lie on every device; of what is split, a device's part.
    own = jax.tree.map(lambda x: x.addressable_data(0), (current.params, current.aux))
    logger.info("drawing predictions and curves")
    method.save_results(figures, *own, held_out.examples())
    about = sources, parameter_count(current.params), method, config.eval
    write_report(workdir, *about, *(each.size for each in online))
    log.pictures(plan.total_steps, figures)
  log.close()
  return values


def compile_step(train_step, state, batch_shapes):
  """The train step as a program of the devices; all processes have it on return."""
  long = "a few minutes on two cores; " if jax.default_backend() == "cpu" else ""
  note = f"{long}the next start of this same command takes none"
  with logs.long_work("compiling the train step", note):
    compiled = train_step.lower(state, batch_shapes).compile()
  hosts.barrier("compiled")
  return compiled


@contextlib.contextmanager
def _open_checkpoints(config, workdir):
  checkpoints = Checkpoints(workdir, keep=config.keep, best=config.best, clean=True)
  if config.skip_damaged:
    checkpoints.skip_damaged()
  try:
    yield checkpoints
  finally:
    if not hosts.is_lost_contact(sys.exception()):  # else it waits for the others
      checkpoints.close()


@contextlib.contextmanager
def _open_batches(config, source, sampler):
  batches = iter(
    pipeline.make_pipeline(
      source,
      sampler,
      batch_size=config.train.batch_size,
      seed=config.seed,
      threads=config.data.threads,
      workers=config.data.workers,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
  )
  try:
    yield batches
  finally:
    batches.close()


def _shapes(config, sampler, mesh):
  """What a batch of all processes is, for the compiler."""
  return {
    name: jax.ShapeDtypeStruct(
      (config.train.batch_size, *array.shape),
      array.dtype,
      sharding=sharding.split_rows(mesh),
    )
    for name, array in for_devices(empty_row(sampler)).items()
  }


def _started(config, method, state_, mesh):
  """A state with the encoder that `config.init_from` names."""
  places = state.state_shardings(method, mesh)
  weights = starting_point.load_into(config, method, state_.params, state_.aux)
  params, aux = sharding.place(weights, (places.params, places.aux))
  return state_.replace(params=params, aux=aux)


def _unmeasured(due, step, workdir):
  """Those of the evaluators due at a step that metrics.jsonl has no row of.

  Each has made a row, in this order. The k-NN may be had at one start and not at the
  next one, so that its rows are known by what they hold.
  """
  is_first = jax.process_index() == 0  # which writes them
  rows = logs.read_rows(workdir / "metrics.jsonl") if is_first else []
  rows = [" ".join(row) for row in rows if row["step"] == step]
  online = sum("online_" in row for row in rows)  # or of random_init alone
  made = {"online": online, "rest": sum("eval/" in row for row in rows) - online}
  made = {name: int(n) for name, n in hosts.from_process_zero(made).items()}
  rest = [evaluator for evaluator in due if not isinstance(evaluator, Online)]
  done = rest[: made["rest"]]
  if made["online"]:
    done += [evaluator for evaluator in due if isinstance(evaluator, Online)]
  return [evaluator for evaluator in due if evaluator not in done]


def _draw_inputs(method, rows, step_key, accumulate, figures, log):
  """Process 0 draws what the first step sees of its own rows."""
  if jax.process_index() == 0:
    inputs = state.first_inputs(_of_whole_batch(rows), step_key, **accumulate)
    method.save_figures(figures, *inputs)
    log.pictures(1, figures)
  hosts.barrier("drawn")


def _of_whole_batch(rows):
  """Rows of a process, with as many extents as a batch of all processes has.

  Draws are made for a whole batch; of other processes' rows their number counts.
  """
  if "extent" not in rows:
    return rows
  repeats = (jax.process_count(), *[1] * (rows["extent"].ndim - 1))
  return {**rows, "extent": np.tile(rows["extent"], repeats)}


def _log(log, step, plan, row, headline, schedule, perf, perf_text):
  values = {f"train/{name}": float(value) for name, value in row.items()}
  text = logs.metrics_text(values, headline)
  values["train/learning_rate"] = float(schedule(step - 1))
  log.metrics(step, values)
  log.perf(step, perf)
  logger.info("step %d/%d  %s  %s", step, plan.total_steps, text, perf_text)
