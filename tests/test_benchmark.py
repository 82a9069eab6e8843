"""The benchmark measures the real step of a recipe."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.long
def test_each_lowering_gives_one_json_object(pictures, tmp_path):
  result = subprocess.run(
    [
      sys.executable,
      "-m",
      "motion_jax.benchmark",
      f"--config={ROOT}/configs/mosi.py:smoke",
      "--config.data.name=folder",
      f"--config.data.path={pictures}",
      "--compare=native,folded",
      f"--trace={tmp_path}",
      "--steps=2",
      "--input_seconds=0.2",
    ],
    capture_output=True,
    text=True,
    check=True,
  )
  rows = [json.loads(line) for line in result.stdout.splitlines()]
  assert [row["lowering"] for row in rows] == ["native", "folded"]
  for row in rows:
    assert row["clips_per_step"] == 72
    assert row["clips_per_second"] == pytest.approx(72 / row["step_seconds"])
    assert 0 < row["pretext_share"] < 1
    assert row["teraflops_per_step"] > 0
    assert row["sources_per_second"] > 0
    need = 8 / row["step_seconds"]
    ratio = row["sources_per_second"] / need
    assert row["input_rate_to_need"] == pytest.approx(ratio)
    assert sum(row["stage_shares"].values()) == pytest.approx(1)
    assert row["stage_shares"]["network"] > 0.5
  # The lowerings do the same work: their FLOPs agree within a factor.
  assert 0.5 < rows[0]["teraflops_per_step"] / rows[1]["teraflops_per_step"] < 2
  assert [*tmp_path.rglob("*.xplane.pb")]


@pytest.mark.slow
@pytest.mark.long
def test_scaling_gives_every_device_as_many_rows():
  result = subprocess.run(
    [
      sys.executable,
      "-m",
      "motion_jax.benchmark",
      f"--config={ROOT}/configs/mosi.py:smoke",
      "--config.model.bn_groups=4",
      "--scaling",
      "--steps=1",
      "--input_seconds=0.1",
    ],
    capture_output=True,
    text=True,
    check=True,
    env={**os.environ, "JAX_NUM_CPU_DEVICES": "4"},
  )
  rows = [json.loads(line) for line in result.stdout.splitlines()]
  assert [row["devices"] for row in rows] == ["1 x cpu", "2 x cpu", "4 x cpu"]
  assert [row["clips_per_step"] for row in rows] == [18, 36, 72]
