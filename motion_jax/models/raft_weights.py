"""Official RAFT weights (PyTorch) into our model."""

import os

import jax.numpy as jnp
import numpy as np
from flax import nnx

from motion_jax.models import raft, torch_file

_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}
# The official mask head is a list with a ReLU between its convolutions.
_MASK = {"mask.conv1": "mask.0", "mask.conv2": "mask.2"}


def load_raft(path: str | os.PathLike) -> raft.Raft:
  """Reads an official weights file such as `raft-things.pth` or `raft-small.pth`.

  Args:
    path: file written by `torch.save`; the size of the network is found out.

  Returns:
    The model in evaluation mode.

  Raises:
    ValueError: if the file holds no RAFT weights; missing and unknown names are listed.
  """
  state = torch_file.load_torch(path)
  first = state.get("fnet.conv1.weight")
  if first is None:
    names = ", ".join(list(state)[:3])
    raise ValueError(
      f"{path} holds no RAFT weights: found {names}, ...; expected fnet.conv1.weight,"
      " ..., as in raft-things.pth or raft-small.pth"
    )
  return import_raft(raft.Raft("small" if len(first) == 32 else "large"), state)


def import_raft(model: raft.Raft, state: dict[str, np.ndarray]) -> raft.Raft:
  """Copies an official state_dict into a model.

  The `module.` prefix of parallel training is dropped and counters of batches are
  ignored. The norm of a strided shortcut may be stored under its second name
  (`downsample.1`) as well.

  Args:
    model: is changed.
    state: arrays by name.

  Returns:
    The model.

  Raises:
    ValueError: for missing or unknown names, other shapes, or different values under
      the two names of a norm. The model is then unchanged.
  """
  state = _unique_names(state)
  variables = _named_variables(model)
  missing = [name for name in variables if name not in state]
  unknown = [name for name in state if name not in variables]
  if missing or unknown:
    raise ValueError(
      f"these are not the weights of RAFT {model.size!r}: {_list(missing)} missing,"
      f" {_list(unknown)} unknown; is it the file of the other size?"
    )
  values = {}
  for name, variable in variables.items():
    value = np.asarray(state[name], np.float32)
    value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    if value.shape != variable.shape:
      raise ValueError(
        f"{name} has shape {state[name].shape}, which does not fit RAFT {model.size!r};"
        " is it the file of the other size?"
      )
    values[name] = jnp.asarray(value)
  for name, variable in variables.items():
    variable[...] = values[name]
  return model


def _unique_names(state):
  result = {}
  for name, value in state.items():
    name = name.removeprefix("module.").replace("downsample.1.", "norm3.")
    if name.endswith("num_batches_tracked"):
      continue
    if name in result and not np.array_equal(result[name], value):
      raise ValueError(f"{name} and its second name downsample.1 hold different values")
    result[name] = value
  return result


def _named_variables(model):
  """Variables of the model by their official names."""
  result = {}
  for path, variable in nnx.iter_graph(model):
    if isinstance(variable, nnx.Variable):
      name = ".".join([*map(str, path[:-1]), _LEAVES[path[-1]]])
      for ours, official in _MASK.items():
        name = name.replace(ours, official)
      result[name] = variable
  return result


def _list(names):
  more = ", ..." if len(names) > 3 else ""
  return f"{len(names)} names ({', '.join(names[:3])}{more})" if names else "none"
