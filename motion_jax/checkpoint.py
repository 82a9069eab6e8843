"""Checkpoints of a run: state, data position and config, atomic and resumable."""

import contextlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policies

from motion_jax.config import UserError, completed
from motion_jax.state import TrainState

# What Orbax says when shapes or names differ from the stored ones.
_OTHER_TREE = ("not compatible with the stored shape", "tree structures do not match")

# And when a checkpoint has no position in the data: there is no training to go on with.
_NO_DATA = ("data/metadata", 'Item "data" was not found')

# Key of a stored config: the weights are an encoder's, those of heads are random.
ENCODER_ONLY = "encoder_only"


class Checkpoints:
  """The checkpoints of one working directory (Orbax, written in the background).

  Args:
    workdir: folder of the run; checkpoints lie in its `checkpoints/`.
    keep: how many of the latest checkpoints to keep, beside the best one.
    best: name of a held-out metric, higher is better, whose best checkpoint is kept
      too; of those that were evaluated before they were saved.
  """

  def __init__(self, workdir: pathlib.Path, *, keep: int = 2, best: str = ""):
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
      ),
    )

  def latest_step(self) -> int | None:
    """The last complete checkpoint's step, None when there is none."""
    return self._manager.latest_step()

  def save(
    self, state: TrainState, iterator, config: Mapping, metrics: Mapping[str, float]
  ) -> None:
    """Starts to write a checkpoint; complete when the next save or `wait` returns.

    Raises:
      UserError: if this or the previous checkpoint could not be written (disk full,
        no permission); earlier checkpoints stay as they are.
    """
    step = int(jax.device_get(state.step))
    items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
    # Counted in global batches, so it holds for any number of processes.
    items["data"] = ocp.args.JsonSave(dict(iterator.get_state()))
    items["config"] = ocp.args.JsonSave(dict(config))
    self._write(
      lambda: self._manager.save(
        step, args=ocp.args.Composite(**items), metrics=dict(metrics), force=True
      )
    )

  def save_weights(self, params, aux, config: Mapping) -> None:
    """Writes weights that no training has made, as step 0; complete on return."""
    trees = _with_arrays({"params": params, "aux": aux})
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    items["config"] = ocp.args.JsonSave(dict(config))
    self._write(lambda: self._manager.save(0, args=ocp.args.Composite(**items)))
    self.wait()

  def wait(self) -> None:
    """Returns when everything is on the disk; raises as `save` does."""
    self._write(self._manager.wait_until_finished)

  def close(self) -> None:
    """Finishes what is under way; `wait` is what tells of errors."""
    with contextlib.suppress(Exception):
      self._manager.close()

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
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _items(state))
    items = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
    items["data"] = ocp.args.JsonRestore()
    restored = self._read(step, ocp.args.Composite(**items))
    iterator.set_state(restored.data)
    return TrainState(
      step=restored.loop["step"],
      params=restored.params,
      aux=restored.aux if "aux" in items else state.aux,
      opt_state=restored.optimizer if "optimizer" in items else state.opt_state,
      metrics=jax.tree.unflatten(
        jax.tree.structure(state.metrics), restored.loop["metrics"]
      ),
    )

  def restore_weights(self, step: int, params, aux):
    """Restores (params, aux) alone, into the shapes and shardings given."""
    trees = _with_arrays({"params": params, "aux": aux})
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, trees)
    items = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
    restored = self._read(step, ocp.args.Composite(**items))
    return restored.params, restored.aux if "aux" in trees else aux

  def _read(self, step, args):
    try:
      return self._manager.restore(step, args=args)
    except Exception as error:
      if any(sign in str(error) for sign in _OTHER_TREE):
        reason, fix = "holds another network", "use the config it was written with"
      elif any(sign in str(error) for sign in _NO_DATA):
        reason = "holds weights alone, or is of an earlier version of motion_jax"
        fix = (
          "train in another --workdir; its weights can still be loaded, also by "
          f"--config.init_from={self._directory / str(step)}"
        )
      else:
        reason = "cannot be read"
        fix = f"delete {self._directory / str(step)} to fall back on an earlier one"
      first_line = (str(error).splitlines() or [type(error).__name__])[0]
      raise UserError(
        f"the checkpoint of step {step} in {self._directory} {reason}: "
        f"{first_line}; {fix}"
      ) from error

  def _write(self, write):
    try:
      write()
    except Exception as error:
      complete = self.steps()
      stays = f"step {complete[-1]} is complete" if complete else "none is complete"
      raise UserError(
        f"a checkpoint could not be written to {self._directory} ({stays}): "
        f"{str(error)[:300]}; free some space and run the same command again"
      ) from error


class TrainedEncoder:
  """A trained network as a function from video to features; see `load_encoder`.

  Attributes:
    module: the network in evaluation mode, for normalised video.
    features: size D of the features.
    config: what the run was trained with.
    step: the train step of its checkpoint.
    classifiers: what the run has that turns features [B, D] into logits: a fine-tuned
      network's classifier, MoSI's heads.
  """

  def __init__(
    self,
    module: nnx.Module,
    config: ConfigDict,
    step: int,
    classifiers: Sequence[nnx.Module] = (),
  ):
    self.module, self.config, self.step = module, config, step
    self.classifiers = tuple(classifiers)
    self.features = module.features
    graphdef, self._arrays = nnx.split(module)
    self._apply = jax.jit(lambda arrays, video: nnx.merge(graphdef, arrays)(video))

  def __call__(self, video) -> jax.Array:
    """Encodes clips.

    Args:
      video: [B, T, H, W, 3] RGB, uint8 in [0, 255] or float in [0, 1].

    Returns:
      [B, D] float32.

    Raises:
      ValueError: for another shape or type.
    """
    if video.ndim != 5 or video.shape[-1] != 3:
      raise ValueError(f"video must be [B, T, H, W, 3], found {video.shape}")
    if video.dtype != jnp.uint8 and not jnp.issubdtype(video.dtype, jnp.floating):
      raise ValueError(f"video must be uint8 or float in [0, 1], found {video.dtype}")
    scale = 255.0 if video.dtype == jnp.uint8 else 1.0
    method = self.config.method
    mean, std = jnp.asarray(method.mean), jnp.asarray(method.std)
    return self._apply(self._arrays, (jnp.asarray(video) / scale - mean) / std)

  def __repr__(self) -> str:
    method = self.config.method
    return (
      f"TrainedEncoder({self.config.model.name}, step {self.step}: video [B, T, H, W, "
      f"3], uint8 or float in [0, 1] -> [B, {self.features}]; trained on "
      f"{method.frames} frames of {method.size}x{method.size})"
    )


def load_encoder(
  workdir: str | os.PathLike, step: int | None = None, *, lowering: str = ""
) -> TrainedEncoder:
  """Loads the encoder that a run has trained; needs no config file and no data.

  Args:
    workdir: folder of the run, or one of its checkpoints (`run/checkpoints/120`).
    step: which checkpoint; None for the latest.
    lowering: of the convolutions, 'native' or 'folded'; '' for the run's.

  Raises:
    UserError: if there is no such checkpoint.
  """
  from motion_jax.methods import make_method

  workdir, step = locate(workdir, step)
  checkpoints = Checkpoints(workdir)
  config = ConfigDict(checkpoints.config(step))
  config.model.lowering = lowering or config.model.lowering
  method = make_method(config)
  weights = jax.jit(method.init)(jax.random.key(0))
  weights = checkpoints.restore_weights(step, *weights)
  checkpoints.close()
  heads = () if config.get(ENCODER_ONLY) else method.classifiers(*weights)
  return TrainedEncoder(method.encoder(*weights), config, step, heads)


def locate(
  path: str | os.PathLike, step: int | None = None
) -> tuple[pathlib.Path, int]:
  """Finds a checkpoint.

  Args:
    path: folder of a run, or one of its checkpoints (`run/checkpoints/120`).
    step: which checkpoint; None for the latest.

  Returns:
    (folder of the run, step).

  Raises:
    UserError: if there is no such complete checkpoint.
  """
  path = pathlib.Path(path).expanduser()
  if path.parent.name == "checkpoints" and path.name.isdecimal():
    path, step = path.parents[1], int(path.name)
  if path.is_file():
    raise UserError(
      f"{path} is no run; of PyTorch weights this makes one: python -m "
      f"motion_jax.convert --weights={path} --config=... --workdir=..."
    )
  if not (path / "checkpoints").is_dir():
    raise UserError(f"no checkpoint in {path}; train first, or give another folder")
  checkpoints = Checkpoints(path)
  steps = checkpoints.steps()
  checkpoints.close()
  if not steps or (step is not None and step not in steps):
    raise UserError(
      f"{path} holds no complete checkpoint{f' of step {step}' if step else ''}; "
      f"complete are those of {steps}"
    )
  return path, steps[-1] if step is None else step


def _items(state: TrainState) -> dict[str, Any]:
  loop = {"step": state.step, "metrics": jax.tree.leaves(state.metrics)}
  items = {
    "params": state.params,
    "aux": state.aux,
    "optimizer": state.opt_state,
    "loop": loop,
  }
  return _with_arrays(items)


def _with_arrays(trees: dict[str, Any]) -> dict[str, Any]:
  """Those that hold arrays; Orbax refuses others: the aux of networks without batch
  norm, the state of plain SGD."""
  return {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}
