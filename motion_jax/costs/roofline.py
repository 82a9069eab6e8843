"""What a device can do at most, and how near to it a program comes.

A program needs at least the longer of two times: its arithmetic at the peak rate, and
the bytes that it reads and writes at the bandwidth of the memory (Williams et al.,
Roofline, CACM 2009).
"""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Peak:
  """Upper limits of one device, from its maker's data sheet.

  Attributes:
    teraflops: 1e12 dense bfloat16 (V100 and T4: float16) operations per second.
    gigabytes: 1e9 bytes of memory per second.
  """

  teraflops: float
  gigabytes: float


# By words of `device_kind`; the first that fits counts. A TPU v2 or v3 device is one of
# the two cores of a chip.
PEAKS = {
  "TPU v2": Peak(23, 350),
  "TPU v3": Peak(61.5, 450),
  "TPU v4": Peak(275, 1228),
  "TPU v5 lite": Peak(197, 819),
  "TPU v5e": Peak(197, 819),
  "TPU v5": Peak(459, 2765),
  "TPU v5p": Peak(459, 2765),
  "TPU v6 lite": Peak(918, 1640),
  "TPU v6e": Peak(918, 1640),
  "GH200": Peak(989, 4000),
  "H200": Peak(989, 4800),
  "H100 PCIe": Peak(756, 2000),
  "H100 NVL": Peak(835, 3938),
  "H100": Peak(989, 3350),
  "A100-SXM4-40GB": Peak(312, 1555),
  "A100-PCIE-40GB": Peak(312, 1555),
  "A100": Peak(312, 2039),
  "L40S": Peak(362, 864),
  "L40": Peak(181, 864),
  "L4": Peak(121, 300),
  "V100": Peak(125, 900),
  "T4": Peak(65, 320),
}


def peak(device_kind: str) -> Peak | None:
  """Looks up a device by what JAX calls it; None if it is unknown, as every CPU is."""
  for name, limits in PEAKS.items():
    if re.search(rf"\b{name}\b", device_kind):
      return limits
  return None


def shares(
  limits: Peak, *, teraflops: float, gigabytes: float, seconds: float
) -> dict[str, float | str]:
  """Compares a program with the limits of its device.

  Args:
    limits: of the device.
    teraflops: 1e12 operations of the program on one device.
    gigabytes: 1e9 bytes that it accesses.
    seconds: time that it takes.

  Returns:
    `share_of_peak` (of the arithmetic alone, also of a float32 program that of
    bfloat16), `roofline_seconds` (least time),
    `share_of_roofline` (of that time) and `bound_by`, 'arithmetic' or 'memory'.
  """
  arithmetic = teraflops / limits.teraflops
  memory = gigabytes / limits.gigabytes
  least = max(arithmetic, memory)
  return {
    "share_of_peak": arithmetic / seconds,
    "roofline_seconds": least,
    "share_of_roofline": least / seconds,
    "bound_by": "arithmetic" if arithmetic >= memory else "memory",
  }
