"""What a device can do at most, and how near to it a program comes.

A program that does I operations per byte of memory that it accesses runs at most at
the peak rate of the arithmetic, and at most at I times the bandwidth of the memory
(Williams et al., Roofline, CACM 2009).
"""

import dataclasses
import math
import re

from motion_jax.config import UserError


@dataclasses.dataclass(frozen=True)
class Peak:
  """Upper limits of one device, from its maker's data sheet.

  Attributes:
    teraflops: 1e12 dense bfloat16 (V100 and T4: float16) operations per second.
    gigabytes: 1e9 bytes of memory per second.
    gibibytes: 2**30 bytes of memory: of a TPU, what its compiler leaves to a program;
      of a GPU, what its driver reports. 0: not looked up.
    gigahertz: clock of a TPU's matrix units; their number times it gives the TFLOP/s.
  """

  teraflops: float
  gigabytes: float
  gibibytes: float = 0.0
  gigahertz: float = 0.0


# By words of `device_kind`; the first that fits counts. A TPU v2, v3 or 7x device is
# one of the two cores of a chip.
PEAKS = {
  "TPU v2": Peak(23, 350, 7.48, 0.7),
  "TPU v3": Peak(61.5, 450, 15.48, 0.94),
  "TPU v4": Peak(275, 1228, 30.75, 1.05),
  "TPU v5 lite": Peak(197, 819, 15.75, 1.5),
  "TPU v5e": Peak(197, 819, 15.75, 1.5),
  "TPU v5": Peak(459, 2765, 95.74, 1.75),
  "TPU v5p": Peak(459, 2765, 95.74, 1.75),
  "TPU v6 lite": Peak(918, 1640, 31.25, 1.75),
  "TPU v6e": Peak(918, 1640, 31.25, 1.75),
  "TPU7x": Peak(2307 / 2, 7380 / 2),  # Google Cloud's page of TPU7x (Ironwood)
  "GB200": Peak(2500, 8000),  # GB200 NVL72: 360 PFLOPS (sparse), 576 TB/s for 72
  "B200": Peak(2250, 8000),  # HGX B200: 36 PFLOPS (sparse), 64 TB/s for 8
  "GH200": Peak(989, 4000),
  "H200": Peak(989, 4800, 139.8),
  "H100 PCIe": Peak(756, 2000),
  "H100 NVL": Peak(835, 3938),
  "H100": Peak(989, 3350, 79.1),
  "A100-SXM4-40GB": Peak(312, 1555),
  "A100-PCIE-40GB": Peak(312, 1555),
  "A100 80GB PCIe": Peak(312, 1935),
  "A100": Peak(312, 2039, 79.1),
  "A10G": Peak(70, 600),  # of AWS, slower than the A10
  "A10": Peak(125, 600),
  "L40S": Peak(362, 864),
  "L40": Peak(181, 864),
  "L4": Peak(121, 300),
  "V100": Peak(125, 900),
  "T4": Peak(65, 320),
  "RTX 4090$": Peak(165.2, 1008),  # accumulates in float32; not the D, not a laptop's
  "MI300X": Peak(1307.4, 5300),
}


def peak(device_kind: str) -> Peak | None:
  """Looks up a device by what JAX calls it; None if it is unknown, as every CPU is."""
  for name, limits in PEAKS.items():
    if re.search(rf"\b{name}\b", device_kind):
      return limits
  return None


def given(texts: list[str]) -> Peak:
  """Reads limits that a user gives.

  Args:
    texts: TFLOP/s and GB/s of one device.

  Raises:
    UserError: unless these are two positive numbers.
  """
  try:
    teraflops, gigabytes = (float(text) for text in texts)
  except ValueError:
    teraflops = gigabytes = math.nan
  if not (0 < teraflops < math.inf and 0 < gigabytes < math.inf):
    raise UserError(
      f"--peak={','.join(texts)} must be two positive numbers, TFLOP/s and GB/s of one "
      "device, such as --peak=312,2039"
    )
  return Peak(teraflops, gigabytes)


def compared(
  limits: Peak | None, *, intensity: float, teraflops_per_second: float
) -> dict[str, float | str]:
  """Compares a program with the limits of its device.

  Args:
    limits: of the device; None if they are unknown.
    intensity: operations per byte of memory that the program accesses.
    teraflops_per_second: rate of its operations on one device.

  Returns:
    `operations_per_byte`; with limits also `roofline_teraflops_per_second` (the
    greatest rate at this intensity), `share_of_roofline` (the program's rate of it) and
    `bound_by`, 'arithmetic' or 'memory'.
  """
  found = {"operations_per_byte": intensity}
  if limits is None:
    return found
  by_memory = intensity * limits.gigabytes / 1e3
  most = min(limits.teraflops, by_memory)
  return found | {
    "roofline_teraflops_per_second": most,
    "share_of_roofline": teraflops_per_second / most,
    "bound_by": "arithmetic" if by_memory >= limits.teraflops else "memory",
  }
