"""Peaks by device names, and the roofline of known programs."""

import pytest

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
  ],
)
def test_devices_are_known_by_what_jax_calls_them(kind, teraflops):
  assert roofline.peak(kind).teraflops == teraflops


def test_memory_tells_variants_apart():
  kinds = ("NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe", "NVIDIA GH200 480GB")
  found = [roofline.peak(kind).gigabytes for kind in kinds]
  assert found == [1555, 2039, 4000]


def test_a_cpu_has_no_known_peak():
  assert roofline.peak("cpu") is None


def test_a_program_is_bound_by_what_takes_longer():
  limits = roofline.Peak(teraflops=100, gigabytes=1000)
  found = roofline.shares(limits, teraflops=10, gigabytes=20, seconds=0.2)
  assert found["bound_by"] == "arithmetic"
  assert found["share_of_peak"] == found["share_of_roofline"] == pytest.approx(0.5)
  found = roofline.shares(limits, teraflops=1, gigabytes=50, seconds=0.2)
  assert found["bound_by"] == "memory"
  assert found["roofline_seconds"] == pytest.approx(0.05)
  assert found["share_of_peak"] == pytest.approx(0.05)
  assert found["share_of_roofline"] == pytest.approx(0.25)
