"""Arithmetic of a function by the stages that `jax.named_scope` marks in it."""

import collections
import math
import re
from collections.abc import Callable

import jax

# Primitives that only move or create numbers.
_FREE = {
  "broadcast_in_dim",
  "concatenate",
  "convert_element_type",
  "copy",
  "device_put",
  "dynamic_slice",
  "dynamic_update_slice",
  "gather",
  "iota",
  "optimization_barrier",
  "pad",
  "rev",
  "reshape",
  "scatter",
  "sharding_constraint",
  "slice",
  "split",
  "squeeze",
  "platform_index",
  "stop_gradient",
  "transpose",
}


def stage_flops(function: Callable, *args) -> dict[str, float]:
  """Counts the floating-point operations of every stage and of its backward pass.

  As it is written, before a compiler rewrites it: 2 per multiply-add of convolutions
  and matrix products, 1 per element of any other result. Loops count as often as they
  run, conditionals as their dearest branch, what is written for one platform as it is
  for others, loops of unknown length once.

  Args:
    function: traceable by JAX.
    *args: its arguments, or their shapes.

  Returns:
    {outermost scope: operations}, the largest first; '' is what lies in no scope, and
    'x backward' what the gradients of scope x take, anything recomputed for them
    included.
  """
  totals: collections.Counter = collections.Counter()
  _count(jax.make_jaxpr(function)(*args).jaxpr, "", 1.0, totals)
  return dict(totals.most_common())


def _count(jaxpr, stage, times, totals):
  for equation in jaxpr.eqns:
    here = stage or _outermost(str(equation.source_info.name_stack))
    if equation.primitive.name == "cond":
      branches = equation.params["branches"]
      if equation.params.get("branches_platforms"):
        branches = branches[-1:]  # the default of `lax.platform_dependent`
      found = [collections.Counter() for _ in branches]
      for branch, costs in zip(branches, found, strict=True):
        _count(branch.jaxpr, here, times, costs)
      totals.update(max(found, key=lambda costs: costs.total()))
      continue
    inner = [*_inner_jaxprs(equation)]
    repeats = equation.params.get("length", 1)
    for part in inner:
      _count(part, here, times * repeats, totals)
    if not inner and (cost := _cost(equation)):
      totals[here] += times * cost


def _cost(equation):
  name, out = equation.primitive.name, equation.outvars[0].aval
  size = math.prod(getattr(out, "shape", ()))
  if name == "conv_general_dilated":
    kernel = equation.invars[1].aval.shape
    out_channels = equation.params["dimension_numbers"].rhs_spec[0]
    # Holes between the inputs, in gradients of strided convolutions, cost nothing.
    holes = math.prod(equation.params["lhs_dilation"])
    return 2 * size * math.prod(kernel) / kernel[out_channels] / holes
  if name == "dot_general":
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * size * math.prod(shape[axis] for axis in contracted)
  return 0 if name in _FREE else size


def _inner_jaxprs(equation):
  for value in equation.params.values():
    for part in value if isinstance(value, (tuple, list)) else (value,):
      part = getattr(part, "jaxpr", part)
      if hasattr(part, "eqns"):
        yield part


def _outermost(name_stack):
  """'jvp(visual)/stage2' -> 'visual', 'transpose(jvp(visual))' -> 'visual backward'."""
  backward = False
  for part in name_stack.split("/"):
    backward |= part.startswith("transpose(")
    name = re.sub(r"^(\w+\()+|\)+$", "", part)
    if name:
      return f"{name} backward" if backward else name
  return ""
