"""Peaks by device names, and the roofline of known programs."""

import pytest

from motion_jax.config import UserError
from motion_jax.costs import roofline


@pytest.mark.parametrize(
  ("kind", "teraflops"),
  [
    ("NVIDIA H200", 989),
    ("NVIDIA H100 80GB HBM3", 989),
    ("NVIDIA H100 PCIe", 756),
    ("NVIDIA A100-SXM4-80GB", 312),
    ("NVIDIA L40S", 362),
    ("NVIDIA L40", 181),
    ("NVIDIA L4", 121),
    ("NVIDIA GH200 480GB", 989),
    ("NVIDIA H100 NVL", 835),
    ("Tesla T4", 65),
    ("Tesla V100-SXM2-16GB", 125),
    ("TPU v5 lite", 197),
    ("TPU v5p", 459),
    ("TPU v6 lite", 918),
    ("TPU7x", 1153.5),  # of a core; a chip has two
    ("NVIDIA B200", 2250),
    ("NVIDIA GB200", 2500),
    ("NVIDIA A10G", 70),
    ("NVIDIA A10", 125),
    ("NVIDIA GeForce RTX 4090", 165.2),
    ("AMD Instinct MI300X", 1307.4),
  ],
)
def test_devices_are_known_by_what_jax_calls_them(kind, teraflops):
  assert roofline.peak(kind).teraflops == teraflops


def test_memory_tells_variants_apart():
  kinds = ("NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe", "NVIDIA GH200 480GB")
  found = [roofline.peak(kind).gigabytes for kind in kinds]
  assert found == [1555, 1935, 4000]


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA GeForce RTX 4090 Laptop GPU"])
def test_other_devices_have_no_known_peak(kind):
  assert roofline.peak(kind) is None


def test_a_program_is_bound_by_what_allows_less():
  limits = roofline.Peak(teraflops=100, gigabytes=1000)  # even at 100 per byte
  found = roofline.compared(limits, intensity=500, teraflops_per_second=50)
  assert found["operations_per_byte"] == 500
  assert found["bound_by"] == "arithmetic"
  assert found["roofline_teraflops_per_second"] == 100
  assert found["share_of_roofline"] == pytest.approx(0.5)
  found = roofline.compared(limits, intensity=20, teraflops_per_second=5)
  assert found["bound_by"] == "memory"
  assert found["roofline_teraflops_per_second"] == pytest.approx(20)
  assert found["share_of_roofline"] == pytest.approx(0.25)


def test_of_an_unknown_device_only_the_program_is_told():
  found = roofline.compared(None, intensity=20, teraflops_per_second=5)
  assert found == {"operations_per_byte": 20}


def test_limits_can_be_given():
  assert roofline.given(["312", "2039.5"]) == roofline.Peak(312, 2039.5)


@pytest.mark.parametrize(
  "texts",
  [["312"], ["a", "b"], ["1", "0"], ["nan", "1"], ["1", "2", "3"], ["inf", "1"]],
)
def test_wrong_limits_are_told(texts):
  with pytest.raises(UserError, match="--peak=312,2039"):
    roofline.given(texts)
