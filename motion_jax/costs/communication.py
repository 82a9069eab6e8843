"""What devices tell each other in a training step, read from its compiled program."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

from motion_jax.costs.program import walk

_KINDS = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "reduce-scatter",
)
_BYTES = {"pred": 1, "c64": 8, "c128": 16}


@dataclasses.dataclass(frozen=True)
class Collective:
  """One operation in which devices communicate.

  Attributes:
    kind: as XLA names it, such as 'all-reduce'.
    stage: the named scopes it serves; 'x backward' is the backward pass of x.
    payload: bytes of its results on one device.
    devices: how many take part together.
    times: how often a step runs it.
  """

  kind: str
  stage: str
  payload: int
  devices: int
  times: int

  @property
  def sent(self) -> float:
    """Bytes that a device sends per step, where devices form a ring."""
    share = (self.devices - 1) / self.devices
    factors = {
      "all-reduce": 2 * share,
      "reduce-scatter": self.devices - 1,  # its result is a device's part
      "collective-permute": 1,
      "collective-broadcast": 1,
    }
    return self.times * self.payload * factors.get(self.kind, share)


def summary(program: str, devices: int) -> dict:
  """Adds up the communication of a compiled program.

  Args:
    program: the text of an optimised HLO module.
    devices: how many it is for.

  Returns:
    Megabytes (1e6 bytes) per step and device: `sent_megabytes`, and in `operations`
    a row per kind and stage, the largest first.
  """
  found = collections.defaultdict(lambda: [0, 0, 0.0])
  for each in collectives(program, devices):
    row = found[each.kind, each.stage]
    row[0] += each.times
    row[1] += each.times * each.payload
    row[2] += each.sent
  rows = sorted(found.items(), key=lambda item: -item[1][2])
  return {
    "sent_megabytes": sum(row[2] for row in found.values()) / 1e6,
    "operations": [
      {
        "kind": kind,
        "stage": stage,
        "times": times,
        "payload_megabytes": payload / 1e6,
        "sent_megabytes": sent / 1e6,
      }
      for (kind, stage), (times, payload, sent) in rows
    ],
  }


def collectives(program: str, devices: int) -> Iterator[Collective]:
  """Reads the communication of a compiled program.

  Args:
    program: the text of an optimised HLO module.
    devices: how many it is for.

  Yields:
    Every collective operation between several devices. Those in a loop count as often
    as it runs (once, where that is unknown), those in a branch once.
  """
  for line, times, scopes in walk(program):
    match = re.search(rf" = (.*?) ({'|'.join(_KINDS)})(-start)?\(", line)
    if match and (group := _group_size(line, devices)) > 1:
      # What only starts has operands and results, all-reduce of older compilers not.
      is_pair = match[3] and (match[2] != "all-reduce" or match[1].startswith("(("))
      size = _size(match[1], is_pair)
      yield Collective(match[2], _stage(scopes), size, group, times)


def table(operations: list[dict]) -> str:
  """The `operations` of a summary as aligned lines."""
  lines = [f"  {'kind':20s}{'times':>7s}{'payload MB':>13s}{'sent MB':>13s}  stage"]
  for row in operations:
    lines.append(
      f"  {row['kind']:20s}{row['times']:7d}{row['payload_megabytes']:13.4f}"
      f"{row['sent_megabytes']:13.4f}  {row['stage']}"
    )
  return "\n".join(lines)


def _group_size(line, devices):
  """How many devices communicate together."""
  if re.search(r"source_target_pairs=\{\{", line):
    return 2
  if named := re.search(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}", line):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
    axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])
    return math.prod(int(part or sizes[axis]) for axis, part in axes)
  if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
    return int(tiled[1])
  listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
  return len(listed[1].split(",")) if listed else devices


def _size(shapes, is_pair):
  """Bytes of the arrays in a text such as '(f32[8,3]{1,0}, bf16[])'.

  Of a pair of operands and results these count, tokens 'u32[]' not.
  """
  arrays = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
  if is_pair:
    arrays = [array for array in arrays if array != ("u32", "")]
    arrays = arrays[len(arrays) // 2 :]
  return sum(
    _itemsize(dtype) * math.prod(int(n) for n in shape.split(",") if n)
    for dtype, shape in arrays
  )


def _itemsize(dtype):
  return _BYTES.get(dtype) or max(1, int(re.search(r"\d+", dtype)[0]) // 8)


def _stage(scopes):
  """The stages in the scopes of an operation, which may serve several."""
  found = re.findall(r"(transpose\()?jvp\((\w*)\)", scopes)
  stages = {(stage or "loss") + (" backward" if back else "") for back, stage in found}
  return ", ".join(sorted(stages)) or "rest"
