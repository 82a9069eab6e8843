"""The operations of a compiled program, as often as they run."""

import re
from collections.abc import Iterator


def walk(program: str) -> Iterator[tuple[str, int, str]]:
  """Reads a compiled program.

  Args:
    program: the text of an optimised HLO module.

  Yields:
    (line, times, scopes) of every operation, those of a fusion after it. Those in a
    loop count as often as it runs (once, where that is unknown), those in a branch
    once. The scopes are the path that JAX gives it, such as 'jit(step)/jvp(network)/
    add'; of what the compiler has added, those of the loop or fusion that it is in.
  """
  bodies, entry = _computations(program)
  waiting = [(entry, 1, "")]
  while waiting:
    body, times, outer = waiting.pop()
    for line in bodies[body]:
      own = re.search(r'op_name="([^"]*)"', line)
      scopes = own[1] if own else outer
      waiting += [(inner, times * n, scopes) for inner, n in _called(line, bodies)]
      yield line, times, scopes


def _computations(program):
  """({name: lines}, name of the first one to run)."""
  bodies, entry, lines = {}, "", []
  for line in program.splitlines():
    start = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
    if start:
      lines = bodies[start[2]] = []
      entry = start[2] if start[1] else entry
    else:
      lines.append(line)
  return bodies, entry


def _called(line, bodies):
  """Computations that an operation runs, each with how often."""
  times = _trips(line, bodies) if " while(" in line else 1
  lists = re.findall(
    r"(?:body|calls|to_apply|\w*computations?)=(\{.*?\}|%[\w.\-]+)", line
  )
  names = re.findall(r"%([\w.\-]+)", " ".join(lists))
  return [(name, times) for name in names if name in bodies]


def _trips(line, bodies):
  """How often a loop runs: as it says, or as long as a counter is below a number."""
  if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', line):
    return int(known[1])
  named = re.search(r"condition=%([\w.\-]+)", line)
  condition = "\n".join(bodies.get(named[1], ())) if named else ""
  numbers = re.findall(r"= s32\[\]\S* constant\((\d+)\)", condition)
  return int(numbers[0]) if len(numbers) == 1 and "direction=LT" in condition else 1
