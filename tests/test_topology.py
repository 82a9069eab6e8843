"""Programs for devices that are not there: what is read from them, which batch fits."""

import importlib.metadata
import importlib.util
import json
import os
import re
import sys

import children
import pytest
from conftest import ROOT
from test_config import CONFIGS, load

from motion_jax.config import UserError
from motion_jax.costs import ahead, communication, cycles
from motion_jax.costs.fit import largest
from motion_jax.costs.topology import Topology
from motion_jax.data.absent import SIZES, absent_source, with_classes
from motion_jax.data.builders import OFFICIAL, synthetic_actions
from motion_jax.data.rows import empty_row
from motion_jax.methods import make_method

TPU = importlib.util.find_spec("libtpu")
GPU = importlib.util.find_spec("jax_cuda13_plugin")

# Lines of what libtpu makes of configs/mosi.py:smoke, without what nothing reads.
PROGRAM = (ROOT / "tests" / "tpu_program.txt").read_text()


def test_cycles_are_summed_by_scope_and_as_often_as_loops_run():
  assert cycles.by_scope(PROGRAM) == {
    "network/conv1": 21340,
    "pseudo_motion/render": 9 * 1962,  # its fusion has no scope of its own
    "network/conv1 backward": 5000,
    "rest": 3265,
  }
  assert not cycles.by_scope("ENTRY %main () -> f32[] {\n  %a = f32[] add()\n}")


def test_communication_that_only_starts_counts_its_results_once():
  found = communication.collectives(PROGRAM, 2)
  assert [(each.kind, each.payload, each.stage) for each in found] == [
    ("all-reduce", 32, "network backward"),
    ("all-reduce", 24, "network"),  # of two arrays
    ("all-gather", 64, "rest"),
    ("collective-permute", 5, "rest"),
  ]


def test_sizes_of_data_sets_are_those_of_their_builders():
  assert SIZES["ucf101"][0] == OFFICIAL["ucf101"].SIZES[0][0]
  assert SIZES["hmdb51"][0] == OFFICIAL["hmdb51"].SIZES["train"]
  builder = OFFICIAL["something_something_v2"]
  assert SIZES["something_something_v2"] == (builder.SIZES["train"], builder.CLASSES)
  assert SIZES["synthetic_actions"][0] == synthetic_actions.SIZES["default"]["train"]


@pytest.mark.parametrize(
  ("recipe", "changes", "count"),
  [
    ("mosi.py:imagenet,images_per_class=5", {}, 5000),
    ("modist.py:kinetics400_mini", {}, 60_000),
    ("finetune.py:ucf101", {"data.fraction": 0.01}, 96),
    ("mosi.py:folder", {}, 0),
  ],
)
def test_an_absent_data_set_has_as_many_records(recipe, changes, count):
  config = get(recipe)
  config.update_from_flattened_dict(changes)
  assert len(absent_source(config.data)) == count


@pytest.mark.parametrize(
  ("recipe", "shapes"),
  [
    ("modist.py:synthetic_actions", {"motion": (2, 8, 40, 71, 1)}),
    ("detect.py:ava", {"boxes": (16, 4), "actions": (16, 80)}),
    ("finetune.py:hmdb51,recipe=mas", {"video": (16, 128, 227, 3), "label": ()}),
  ],
)
def test_a_batch_has_its_shapes_without_data(recipe, shapes, caplog):
  config = with_classes(get(recipe))
  sampler = make_method(config).sampler("train", absent_source(config.data))
  row = empty_row(sampler)
  assert {name: row[name].shape for name in shapes} == shapes
  assert not caplog.records


def test_classes_come_with_the_data_set_or_must_be_given():
  assert with_classes(get("finetune.py:ucf101")).method.classes == 101
  config = get("finetune.py:folder")
  with pytest.raises(UserError, match=r"--config\.method\.classes=10"):
    with_classes(config)
  config.method.classes = 7
  assert with_classes(config).method.classes == 7


def get(recipe):
  name, _, argument = recipe.partition(":")
  return load(CONFIGS / name).get_config(argument)


@pytest.mark.parametrize("told", [1.0, 0.9, None])  # of what does not fit
@pytest.mark.parametrize(
  ("fixed", "per_row", "first", "answer"),
  [(0.2, 0.5, 10, 31), (0.2, 0.5, 100, 31), (1.0, 20.0, 4, 0), (0.2, 0.02, 1, 777)],
)
def test_the_largest_batch_is_found_in_few_tries(fixed, per_row, first, answer, told):
  tried = []

  def compiled(rows):
    tried.append(rows)
    needed = fixed + per_row * rows
    if needed <= 15.75:
      return True, needed
    return False, told and told * needed

  found = largest(first, compiled, 15.75)
  assert answer - max(1, answer // 16) < found <= answer
  assert len({*tried}) == len(tried) <= 6


def test_what_a_refused_program_needs_is_read():
  message = "Ran out of memory in memory space hbm. Used 22.31G of 15.75G hbm. Exceeded"
  assert ahead.sizes_of_refusal(message, 1.0) == {"needed": 22.31, "capacity": 15.75}
  message = (
    "memory required for HLO temporaries (190.73G) exceeds available HBM (15.75G)"
  )
  assert ahead.sizes_of_refusal(message, 1.0) == {"needed": 190.73, "capacity": 15.75}
  found = ahead.sizes_of_refusal("Used 512.00M of 1.00G hbm", 1.0)
  assert found == {"needed": 0.5, "capacity": 1.0}
  assert ahead.sizes_of_refusal("?", 2.0) == {"needed": None, "capacity": 2.0}


@pytest.mark.parametrize(
  ("name", "versions", "told"),
  [
    ("v5e:4x4", {}, r"libtpu.* is not installed: pip install .*\.\[tpu\]"),
    ("h100:8", {}, r"jax-cuda13-plugin.* is not installed: pip .*\.\[cuda13\]"),
    ("v5e:4x4", {"libtpu": "0.0.7"}, r"libtpu 0\.0\.7 does not go .*\.\[tpu\]"),
    ("h100:8", {"jax-cuda13-plugin": "0.1"}, r"0\.1 does not go .*\.\[cuda13\]"),
  ],
)
def test_a_compiler_that_is_not_there_is_told_with_the_command(
  name, versions, told, monkeypatch
):
  def version(distribution):
    if distribution not in versions:
      raise importlib.metadata.PackageNotFoundError(distribution)
    return versions[distribution]

  monkeypatch.setattr(importlib.metadata, "version", version)
  with pytest.raises(UserError, match=told):
    Topology(name)


@pytest.mark.parametrize("name", ["h100", "h100:x", "a100:0", "h200:12"])
def test_numbers_of_gpus_that_no_machine_has_are_refused(name):
  with pytest.raises(UserError, match=f"--topology={name}"):
    Topology(name)


def compiled(config, topology, *flags):
  """What the command tells."""
  command = [sys.executable, "-m", "motion_jax.benchmark", f"--topology={topology}"]
  command += [f"--config={ROOT}/configs/{config}", *flags]
  result = children.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


def test_the_page_shows_the_rows_that_are_kept():
  table = load(ROOT / "tests" / "benchmarks" / "compiled_table.py")
  rows, page = table.stored(), table.PAGE.read_text()
  assert rows and table.with_table(page, table.ordered(rows)) == page
  refused = {"needed": 16.4, "capacity": 15.75}
  row = dict(recipe="mosi.py:ucf101", topology="v5e:2x4: 8 x TPU v5 lite", fits=False)
  row |= dict(batch_size=80, rows_per_device=10.0, memory_gibibytes=refused)
  assert table.cells(row)[1:5] == (
    "v5e:2x4",
    "80 (10)",
    "16.4 of 15.8, **does not fit**",
    "",
  )


SMALL = ("mosi", "modist", "mas", "joint", "finetune", "detect")


@pytest.mark.long
@pytest.mark.skipif(TPU is None, reason="libtpu is not installed: pip install .[tpu]")
@pytest.mark.parametrize("method", SMALL)
def test_small_recipes_compile_for_a_tpu_slice(method):
  found = compiled(f"{method}.py:smoke", "v5e:2x2")
  assert found["fits"] and found["topology"] == "v5e:2x2: 4 x TPU v5 lite"
  memory = found["memory_gibibytes"]
  assert 0 < memory["needed"] < memory["capacity"] == 15.75
  estimate = found["compilers_estimate"]
  assert estimate["megacycles"] / 1500 == pytest.approx(estimate["step_seconds"])
  assert 0 < estimate["share_of_peak"] < 1
  shares = found["scope_shares"]
  assert len(shares) == 10 and 0.5 < sum(shares.values()) < 1
  assert any("backward" in name for name in shares)


@pytest.mark.long
@pytest.mark.skipif(TPU is None, reason="libtpu is not installed: pip install .[tpu]")
def test_a_tpu_sends_gradients_and_statistics_alone():
  found = compiled("mosi.py:smoke", "v5e:2x2")
  kinds = {row["kind"] for row in found["operations"]}
  assert kinds == {"all-reduce"}
  megabytes = sum(row["payload_megabytes"] for row in found["operations"])
  assert found["sent_megabytes"] == pytest.approx(2 * 3 / 4 * megabytes)


@pytest.mark.long
@pytest.mark.skipif(GPU is None, reason="no XLA for CUDA: pip install .[cuda13]")
@pytest.mark.parametrize("method", SMALL)
def test_small_recipes_compile_for_gpus_channels_last(method, tmp_path):
  file = tmp_path / "program.txt"
  found = compiled(f"{method}.py:smoke", "h100:2", f"--program={file}")
  memory = found["memory_gibibytes"]
  assert found["fits"] and 0 < memory["needed"] < memory["capacity"]
  assert "compilers_estimate" not in found
  calls = re.findall(r".*cudnn\$conv.*", file.read_text())
  labels = [re.search(r"dim_labels=(\w+)_\w+->(\w+)", call).groups() for call in calls]
  # Kernels of one frame have two axes, others three.
  assert labels and {*labels} <= {("b01f", "b01f"), ("b012f", "b012f")}


@pytest.mark.long
@pytest.mark.skipif(TPU is None, reason="libtpu is not installed: pip install .[tpu]")
def test_the_batch_that_fits_is_found():
  command = [sys.executable, ROOT / "tests" / "tiny_benchmark.py", "--fit"]
  command += [f"--config={ROOT}/configs/mosi.py:smoke", "--topology=v5e:2x2"]
  result = children.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)
  # A row takes 96 x 96 x 3 bytes, and less than as much again while it is used.
  most = 15.75 * 2**30 / (96 * 96 * 3)
  assert most / 2.2 < found["largest_rows_per_device"] < most
  assert found["settings"] | {"train.batch_size": 8} == found["settings"]
  assert len(found["tries"]) == result.stderr.count("compiled in")
  fitting = [row["train.batch_size"] for row in found["tries"] if row["fits"]]
  assert max(fitting) == found["largest_batch_size"]
