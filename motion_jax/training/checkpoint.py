"""Checkpoints of a run: state, data position and config, atomic and resumable."""

import contextlib
import itertools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from motion_jax import logs
from motion_jax.config import UserError, completed
from motion_jax.data import storage
from motion_jax.data.storage import StorageError
from motion_jax.scale import hosts
from motion_jax.training.damage import damaged_part, has_no_training
from motion_jax.training.state import TrainState

logger = logging.getLogger("motion_jax")

# What Orbax says when shapes or names differ from the stored ones.
_OTHER_TREE = ("not compatible with the stored shape", "tree structures do not match")

# Key of a stored config: the weights are an encoder's, those of heads are random.
ENCODER_ONLY = "encoder_only"


class Checkpoints:
  """The checkpoints of one working directory (Orbax, written in the background).

  Several processes make one together: all of them then know the same checkpoints, even
  if the storage that they share shows some of them an older state.

  Args:
    workdir: folder of the run; checkpoints lie in its `checkpoints/`.
    keep: how many of the latest checkpoints to keep, beside the best one.
    best: name of a held-out metric, higher is better, whose best checkpoint is kept
      too; of those that were evaluated before they were saved.
    clean: delete what a killed training has left of a checkpoint; for trainings alone,
      since a reader would delete what a training is writing.
  """

  def __init__(
    self, workdir: pathlib.Path, *, keep: int = 2, best: str = "", clean: bool = False
  ):
    self._directory = workdir.absolute() / "checkpoints"
    preserve = [policies.LatestN(keep)]
    if best:

      def metric(metrics):
        return (metrics or {}).get(best, float("-inf"))

      preserve.append(policies.BestN(get_metric_fn=metric, reverse=False, n=1))
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(preserve),
        enable_async_checkpointing=True,
        cleanup_tmp_directories=clean,
      ),
    )
    self.latest_step()

  def latest_step(self) -> int | None:
    """The last complete checkpoint's step, alike in all processes; None: there is none.

    To be called in each. A checkpoint gets its name when it is complete, so that one
    process sees it is enough, and the others wait until they do, too.
    """
    latest = hosts.largest(self._newest())
    return latest if latest >= 0 and self.has(latest) else None

  def has(self, step: int) -> bool:
    """Whether there is that complete checkpoint; as `latest_step`, of all processes."""
    if not hosts.largest(step in self.steps()):
      return False
    self._wait_until(lambda: step in self.steps(), step)
    return True

  def save(
    self, state: TrainState, iterator, config: Mapping, metrics: Mapping[str, float]
  ) -> None:
    """Starts to write a checkpoint; complete when the next save or `wait` returns.

    Raises:
      UserError: if this or the previous checkpoint could not be written (disk full,
        no permission); earlier checkpoints stay as they are.
    """
    # Counted in global batches, so it holds for any number of processes.
    json = {"config": dict(config), "data": dict(iterator.get_state())}
    step = int(jax.device_get(state.step))
    self._save(step, _items(state), json, metrics=dict(metrics), force=True)

  def save_weights(self, params, aux, config: Mapping) -> None:
    """Writes weights that no training has made, as step 0; complete on return."""
    self._save(0, {"params": params, "aux": aux}, {"config": dict(config)})
    self.wait()

  def wait(self) -> None:
    """Returns when everything is on the disk; raises as `save` does."""
    self._write(self._manager.wait_until_finished)

  def close(self) -> None:
    """Finishes what is under way; `wait` is what tells of errors."""
    with contextlib.suppress(Exception):
      self._manager.close()

  def skip_damaged(self) -> None:
    """Moves the newest checkpoints to `damaged` beside them, up to the first good one.

    Process 0 decides; it reads them as a whole.

    Raises:
      UserError: if there are some and none is good; then they stay where they are.
    """
    before = self._newest()
    good = self._newest_good() if jax.process_index() == 0 else before
    good = int(hosts.from_process_zero({"good": good})["good"])
    if before >= 0 > good:
      raise UserError(
        f"no checkpoint in {self._directory} can be read; choose another --workdir"
      )
    if jax.process_index() == 0:
      for step in filter(lambda step: step > good, self.steps()):
        self._set_aside(step)
    hosts.barrier("skipped")
    self._wait_until(lambda: (self.steps() or [-1])[-1] == good, good)

  def steps(self) -> list[int]:
    """The steps of all complete checkpoints."""
    self._manager.reload()
    return sorted(self._manager.all_steps())

  def config(self, step: int) -> dict[str, Any]:
    """The config that a checkpoint was written with, and what came since: `completed`.

    All that read a stored config get it here.
    """
    args = ocp.args.Composite(config=ocp.args.JsonRestore())
    return completed(self._read(step, args).config)

  def restore(self, step: int, state: TrainState, iterator) -> TrainState:
    """Restores a checkpoint into the shapes and shardings of `state`.

    It may have been written by another number of processes and devices.

    Args:
      step: which checkpoint.
      state: a TrainState of the run's network and optimiser, with its placement.
      iterator: the data iterator; it is moved to the position of the checkpoint.

    Returns:
      The TrainState of that step.

    Raises:
      UserError: if the files cannot be read or hold another network.
    """
    restored = self._restore(step, _items(state), data=ocp.args.JsonRestore())
    iterator.set_state(restored.data)
    return TrainState(
      step=restored.loop["step"],
      params=restored.params,
      aux=_refilled(state.aux, restored),
      opt_state=restored.get("optimizer", state.opt_state),
      metrics=jax.tree.unflatten(
        jax.tree.structure(state.metrics), restored.loop["metrics"]
      ),
    )

  def restore_weights(self, step: int, params, aux):
    """Restores (params, aux) alone, into the shapes and shardings given."""
    restored = self._restore(step, {"params": params, "aux": aux})
    return restored.params, _refilled(aux, restored)

  def _save(self, step, trees, json, **options):
    items = {name: ocp.args.StandardSave(tree) for name, tree in _with_arrays(trees)}
    items |= {name: ocp.args.JsonSave(value) for name, value in json.items()}
    args = ocp.args.Composite(**items)
    self._write(lambda: self._manager.save(step, args=args, **options))

  def _restore(self, step, trees, **others):
    with contextlib.suppress(Exception):  # of what is damaged, reading tells
      folder = self._directory / str(step) / "aux"
      stored = ocp.StandardCheckpointHandler().metadata(folder)
      trees = {**trees, "aux": _as_stored(trees["aux"], stored)}
    trees = jax.tree.map(ocp.utils.to_shape_dtype_struct, trees)
    items = {name: ocp.args.StandardRestore(tree) for name, tree in _with_arrays(trees)}
    return self._read(step, ocp.args.Composite(**items, **others))

  def _newest(self) -> int:
    step = self._manager.latest_step()
    return -1 if step is None else step

  def _wait_until(self, is_seen, step):
    hosts.wait_for_storage(
      is_seen,
      f"process {jax.process_index()} sees the checkpoints {self.steps()} in "
      f"{self._directory}, where another one sees {step}: the storage that the hosts "
      "share shows them different files; try again later",
    )

  def _newest_good(self, before: float = float("inf")) -> int:
    """The newest checkpoint before a step that is not damaged; -1 if there is none."""
    for step in reversed(self.steps()):
      if step < before and not damaged_part(self._directory / str(step)):
        return step
    return -1

  def _set_aside(self, step: int) -> None:
    folder = self._directory / str(step)
    names = (f"{step}" + f"-{n}" * bool(n) for n in itertools.count())
    places = (self._directory.parent / "damaged" / name for name in names)
    target = next(place for place in places if not place.exists())
    target.parent.mkdir(exist_ok=True)
    reason = damaged_part(folder)
    folder.rename(target)
    logger.warning("the checkpoint of step %d is now %s: %s", step, target, reason)

  def _read(self, step, args):
    try:
      return self._manager.restore(step, args=args)
    except Exception as error:
      text = (str(error).splitlines() or [type(error).__name__])[0]
      _check_others(
        error, f"the checkpoint of step {step} in {self._directory}", "read"
      )
      reason, fix = self._diagnosis(step, text, "data" in dict(args.items()))
      raise UserError(
        f"the checkpoint of step {step} in {self._directory} {reason}; {fix}"
      ) from error

  def _diagnosis(self, step, text, to_resume):
    """What is wrong with a checkpoint that an error has this to say of, and the fix."""
    folder = self._directory / str(step)
    if any(sign in text for sign in _OTHER_TREE):
      return f"holds another network: {text}", "use the config it was written with"
    if to_resume and (has_no_training(folder) or [*folder.glob("data/process_*")]):
      return (
        "holds weights alone, or is of an earlier version of motion_jax",
        "train in another --workdir; its weights can still be loaded, also by "
        f"--config.init_from={folder}",
      )
    part = damaged_part(folder)
    if not part:
      return f"cannot be read: {text}", "try again, or choose another --workdir"
    good = self._newest_good(before=step)
    if good < 0:
      return f"is damaged: {part}", "no earlier one is whole: choose another --workdir"
    return (
      f"is damaged: {part}",
      f"the one before, of step {good}, is whole: a training goes on from there by "
      "--config.train.skip_damaged=True, which puts later ones aside; other commands "
      f"take {self._directory / str(good)}",
    )

  def _write(self, write):
    try:
      write()
    except Exception as error:
      complete = self.steps()
      stays = f"step {complete[-1]} is complete" if complete else "none is complete"
      what = f"a checkpoint in {self._directory} ({stays})"
      _check_others(error, what, "written")
      fix = "free some space and " if logs.is_full_disk(error) else ""
      raise UserError(
        f"{what} could not be written: {str(error)[:300]}; {fix}run the same command "
        "again"
      ) from error


def _check_others(error, what, done):
  """Raises another error where storage or a host is at fault, not the checkpoint."""
  if jax.distributed.is_initialized() and hosts.is_lost_contact(error):
    raise error
  if storage.failing(error):
    raise StorageError(
      f"{what} could not be {done}: {storage.failing(error)}. The storage fails: when "
      "it is back, the same command goes on"
    ) from error


def _as_stored(aux, stored):
  """Aux as older versions have stored it: MoSI's statistics had no name."""
  if not isinstance(aux, dict):
    return aux
  if {*aux} == {"stats"} and "stats" not in stored:
    return aux["stats"]
  return {name: _as_stored(tree, stored[name]) for name, tree in aux.items()}


def _refilled(aux, restored):
  leaves = jax.tree.leaves(restored.get("aux", aux))
  return jax.tree.unflatten(jax.tree.structure(aux), leaves)


def _items(state: TrainState) -> dict[str, Any]:
  return {
    "params": state.params,
    "aux": state.aux,
    "optimizer": state.opt_state,
    "loop": {"step": state.step, "metrics": jax.tree.leaves(state.metrics)},
  }


def _with_arrays(trees: dict[str, Any]) -> list[tuple[str, Any]]:
  """Those that hold arrays; Orbax refuses others: the aux of networks without batch
  norm, the state of plain SGD."""
  return [(name, tree) for name, tree in trees.items() if jax.tree.leaves(tree)]
