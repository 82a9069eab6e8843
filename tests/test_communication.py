"""Bytes between devices: read from programs whose communication is known."""

import json
import os
import sys

import children
import pytest
from conftest import ROOT
from test_config import CONFIGS, load

from motion_jax.costs import communication
from motion_jax.costs.communication import Collective
from motion_jax.costs.measures import scaled

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], f32[8,3])) -> (s32[], f32[8,3]) {
  %gathered = bf16[16,3]{1,0} all-gather(%x), replica_groups=[4,2]<=[8], dimensions={0}
}

%condition (state: (s32[], f32[8,3])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8,3]) -> f32[] {
  %loop = (s32[], f32[8,3]) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %both = (f32[10]{0}, s32[2,2]{1,0}) all-reduce(%a, %b), replica_groups=mesh[\
'axis_0'=4,'axis_1'=2], device_ids=([8]) {'axis_0', 'axis_1'}, to_apply=%add, \
metadata={op_name="jit(step)/(transpose(jvp(network))/dot:jvp()/reduce_sum)"}
  %some = f32[10]{0} all-reduce(%a), replica_groups=mesh['axis_0'=8] \
{'axis_0':(1)4}, to_apply=%add
  %alone = f32[10]{0} all-reduce(%a), replica_groups={{0},{1},{2}}, to_apply=%add
  %all = pred[6]{0} all-to-all(%a), replica_groups={}
  %next = u8[5]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
  ROOT %part = f32[4]{0} reduce-scatter(%a), replica_groups={{0,1,2,3}}, to_apply=%add
}
"""


def test_collectives_of_a_program_are_found_with_their_sizes():
  found = {each.payload: each for each in communication.collectives(PROGRAM, 8)}
  assert found == {
    96: Collective("all-gather", "rest", 96, 2, 5),
    56: Collective("all-reduce", "loss, network backward", 56, 8, 1),
    40: Collective("all-reduce", "rest", 40, 4, 1),
    6: Collective("all-to-all", "rest", 6, 8, 1),
    5: Collective("collective-permute", "rest", 5, 2, 1),
    16: Collective("reduce-scatter", "rest", 16, 4, 1),
  }
  sent = {each.kind: each.sent for each in found.values() if each.payload != 40}
  assert sent == {
    "all-gather": 5 * 96 / 2,
    "all-reduce": 2 * 56 * 7 / 8,
    "all-to-all": 6 * 7 / 8,
    "collective-permute": 5,
    "reduce-scatter": 3 * 16,
  }


def test_a_scaled_recipe_keeps_its_rows_and_groups():
  config = load(CONFIGS / "mosi.py").get_config("kinetics400")
  large = scaled(config, 64)
  assert large.train.batch_size == 64 * 20
  assert large.model.bn_groups == 64 * 2  # of ten sources, as in the recipe
  assert scaled(config, 8, rows=3).model.bn_groups == 2
  assert config.train.batch_size == 160
  small = load(CONFIGS / "mas.py").get_config("smoke")
  assert scaled(small, 64).model.bn_groups == 1  # of the whole batch
  queues = load(CONFIGS / "modist.py").get_config("kinetics400")
  assert scaled(queues, 64, rows=24).method.queue_size % (64 * 24) == 0
  joint = load(CONFIGS / "joint.py").get_config("ucf101")
  assert scaled(joint, 64, rows=24).modist.queue_size % (64 * 24) == 0


def communicated(config, *flags):
  """What the command tells of 8 devices."""
  command = [sys.executable, "-m", "motion_jax.benchmark", "--communication=8"]
  command += [f"--config={ROOT}/configs/{config}", *flags]
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  result = children.run(command, env=environment)
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
  "method", [pytest.param(x, marks=pytest.mark.long) for x in ("mosi", "mas")]
)
def test_only_gradients_and_statistics_travel_with(method):
  found = communicated(f"{method}.py:smoke", "--rows_per_device=2")
  operations = found["operations"]
  assert {row["kind"] for row in operations} == {"all-reduce"}
  total = sum(row["payload_megabytes"] for row in operations)
  # Sums and squares of every BatchNorm, forward and backward, and three numbers.
  assert 1 < total / found["parameter_megabytes"] < 1.01
  assert found["sent_megabytes"] == pytest.approx(2 * 7 / 8 * total)


@pytest.mark.slow
def test_besides_gradients_only_embeddings_travel_with_modist():
  found = communicated("modist.py:smoke", "--rows_per_device=4")
  assert found["batch_size"] == 32
  embeddings = 32 * 16 * 4 / 1e6  # float32 [batch, dim]
  reduced = [row for row in found["operations"] if row["kind"] == "all-reduce"]
  keys = [row for row in reduced if "_key" in row["stage"]]
  statistics = sum(row["payload_megabytes"] for row in keys)  # of the BatchNorm groups
  assert 0 < statistics < 0.03 * found["parameter_megabytes"]
  total = sum(row["payload_megabytes"] for row in found["operations"]) - statistics
  # Keys, queries and their gradients, and a few numbers per query.
  assert 0 < total - found["parameter_megabytes"] < 20 * embeddings
  others = [row for row in found["operations"] if row["kind"] != "all-reduce"]
  assert {row["kind"] for row in others} == {"all-gather"}
  assert max(row["payload_megabytes"] for row in others) <= embeddings
  assert sum(row["payload_megabytes"] for row in others) < 6 * embeddings


def test_wrong_numbers_of_devices_are_told():
  command = [sys.executable, "-m", "motion_jax.benchmark"]
  command += [f"--config={ROOT}/configs/mosi.py:smoke", "--communication=8,many"]
  result = children.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
  assert result.returncode == 2
  assert "such as 8,64,256" in result.stderr
