"""Where the cycles are that a TPU's compiler expects a program to take."""

import collections
import re

from motion_jax.costs.program import walk

_DEPTH = 2  # of scopes told apart
_OF_JAX = {
  *("while", "body", "cond", "closed_call", "eval_jaxpr"),
  *("checkpoint", "rematted_computation"),
}


def by_scope(program: str) -> dict[str, float]:
  """Adds up the estimated cycles of a compiled program.

  Args:
    program: the text of an optimised HLO module.

  Returns:
    {scope: cycles}, the most expensive first; 'x backward' is the backward pass of x.
    Loops count as often as they run. Empty where the compiler estimates nothing.
  """
  found = collections.Counter()
  for line, times, scopes in walk(program):
    if cycles := re.search(r'"estimated_cycles":"(\d+)"', line):
      found[_scope(scopes)] += times * int(cycles[1])
  return dict(found.most_common())


def _scope(path):
  """'jit(step)/transpose(jvp(network))/conv1/add' -> 'network/conv1 backward'."""
  parts = path.split("/")[1:-1]
  backward = any(part.startswith("transpose(") for part in parts)
  names = [re.sub(r"^(\w+\()+|\)+$", "", part) for part in parts]
  named = [name for name in names if name and name not in _OF_JAX]
  scope = "/".join(named[:_DEPTH]) or "rest"
  return f"{scope} backward" if backward else scope
