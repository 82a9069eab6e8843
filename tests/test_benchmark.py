"""The benchmark measures the real step of a recipe."""

import json
import os
import subprocess
import sys

import children
import pytest
from conftest import ROOT
from test_config import CONFIGS, load

from motion_jax.costs import feed, measures

SMOKE = f"--config={ROOT}/configs/mosi.py:smoke"


def benchmark(*words):
  """Runs the command with a method that compiles in a second."""
  command = [sys.executable, ROOT / "tests" / "tiny_benchmark.py", *words]
  return children.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_with_a_peak_the_roofline_of_any_device_is_told(pictures, tmp_path):
  result = benchmark(
    SMOKE,
    "--config.data.name=folder",
    f"--config.data.path={pictures}",
    "--roofline",
    "--peak=2,100",
    "--compare=native,folded",
    f"--trace={tmp_path}",
    "--steps=2",
    "--input_seconds=0.2",
  )
  assert result.returncode == 0, result.stderr
  found, other = map(json.loads, result.stdout.splitlines())
  assert [found["lowering"], other["lowering"]] == ["native", "folded"]
  assert found["dtype"] == "float32"
  assert [*tmp_path.rglob("*.xplane.pb")]
  intensity = 1e3 * found["teraflops_compiled"] / found["gigabytes_compiled"]
  assert found["operations_per_byte"] == pytest.approx(intensity)
  most = found["roofline_teraflops_per_second"]
  assert most == pytest.approx(min(2, intensity * 100 / 1e3))
  share = found["teraflops_per_second"] / most
  assert found["share_of_roofline"] == pytest.approx(share)
  assert found["share_of_peak"] == pytest.approx(found["teraflops_per_second"] / 2)
  assert found["bound_by"] in result.stderr
  assert found["stage_seconds"]["input"] == pytest.approx(
    8 / found["sources_per_second"]
  )


@pytest.mark.slow
def test_the_input_alone_is_told_beside_what_a_host_needs(pictures):
  data = ["--config.data.name=folder", f"--config.data.path={pictures}"]
  words = [SMOKE, *data, "--input", "--input_seconds=0.3"]
  result = benchmark(*words, "--need=1e6", "--host_cores=3")
  assert result.returncode == 0, result.stderr
  [found] = map(json.loads, result.stdout.splitlines())
  each = found["core_milliseconds_per_source"]
  assert 0 < each < 1e3 and found["sources_per_second"] > 1
  assert found["host_cores_needed"] == pytest.approx(1e3 * each)
  assert found["input_rate_to_need"] == pytest.approx(3 / found["host_cores_needed"])
  assert found["input"].startswith("input-bound: the devices wait")
  assert f"{1e3 * each:.1f} of 3 cores" in found["input"]
  bytes_of_canvas = found["device_megabytes_per_source"] * 1e6
  height, width = load(CONFIGS / "mosi.py").get_config("smoke").data.canvas
  assert bytes_of_canvas == pytest.approx(height * width * 3, rel=0.01)


@pytest.mark.slow
def test_the_input_of_a_classifier_needs_no_number_of_classes():
  recipe = f"--config={ROOT}/configs/finetune.py:smoke,scratch"
  result = benchmark(recipe, "--input", "--input_seconds=0.1")
  assert result.returncode == 0, result.stderr
  assert json.loads(result.stdout)["core_milliseconds_per_source"] > 0


def test_what_the_input_gives_is_put_in_words():
  costs = {"core_milliseconds_per_source": 10.0, "host_cores": 2}
  assert feed.verdict(costs, 100.0)["input"].startswith("not input-bound; ")
  assert feed.verdict(costs, 180.0)["input"].startswith("just enough input; ")
  assert feed.verdict(costs, 201.0)["input"].startswith("input-bound: ")
  assert feed.verdict(costs, 201.0, cores=8)["input"].startswith("not input-bound; ")


@pytest.mark.slow
def test_without_a_known_peak_the_way_to_give_it_is_told(tmp_path):
  result = benchmark(
    SMOKE,
    "--config.data.name=folder",
    f"--config.data.path={tmp_path}/none",
    "--roofline",
    "--steps=1",
  )
  assert result.returncode == 0, result.stderr
  assert "peak of cpu unknown; give --peak" in result.stderr
  [found] = map(json.loads, result.stdout.splitlines())
  assert found["operations_per_byte"] > 0
  assert not {"share_of_peak", "share_of_roofline"} & set(found)
  assert found["sources_per_second"] is None and "none" in found["input_note"]


@pytest.mark.slow
def test_operations_are_counted_without_a_step():
  result = benchmark(SMOKE, "--count_only")
  assert result.returncode == 0, result.stderr
  [found] = map(json.loads, result.stdout.splitlines())
  assert set(found) == {"config", "teraflops_as_written", "stage_shares"}
  values = 8 * 96 * 96 * 3  # divided by 255; all else is small
  assert found["teraflops_as_written"] * 1e12 == pytest.approx(values, rel=0.1)
  assert sum(found["stage_shares"].values()) == pytest.approx(1)
  assert f"colours               {100 * found['stage_shares']['colours']:.2f} %" in (
    result.stderr
  )


MISTAKES = {
  f"--config={ROOT}/configs/visualize.py --count_only": "such as configs/mosi.py",
  f"--config={ROOT}/configs/evaluate.py --scaling": "such as configs/mosi.py",
  f"{SMOKE} --steps=0": "0 is not a positive integer",
  f"{SMOKE} --compare=native,foo": "'foo'; known: auto, native, folded",
  f"{SMOKE} --peak=312": "--peak=312,2039",
}
SCRIPT = """
import sys
from absl import flags
from motion_jax import benchmark
from motion_jax.commands import command
for words in sys.argv[1:]:
  flags.FLAGS.unparse_flags()
  print(command.run(benchmark.main, ["benchmark", *words.split()]), file=sys.stderr)
"""


@pytest.mark.slow
def test_mistakes_are_told_before_anything_runs():
  command = [sys.executable, "-c", SCRIPT, *MISTAKES]
  result = children.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
  assert result.returncode == 0 and not result.stdout, result.stderr
  answers = result.stderr.split("\n2\n")
  assert len(answers) == len(MISTAKES) + 1
  for answer, message in zip(answers, MISTAKES.values(), strict=False):
    assert answer.startswith("error: ") and message in answer


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
    assert row["stage_seconds"]["loss"] < row["step_seconds"]
    assert row["compile_seconds"] > 1
    assert row["teraflops_per_step"] > 0
    assert row["sources_per_second"] > 0
    need = 8 / row["step_seconds"]
    ratio = row["sources_per_second"] / need
    assert row["input_rate_to_need"] == pytest.approx(ratio)
    assert sum(row["stage_shares"].values()) == pytest.approx(1)
    assert row["stage_shares"]["network backward"] > 0.3
    assert row["stage_shares"]["network"] > 0.15
  # The lowerings do the same work: their FLOPs agree within a factor.
  for name in ("teraflops_per_step", "teraflops_compiled"):
    assert 0.5 < rows[0][name] / rows[1][name] < 2
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


@pytest.mark.slow
@pytest.mark.long
def test_the_motion_pathway_and_the_queues_are_a_small_part_of_the_papers_step():
  config = load(CONFIGS / "modist.py").get_config("kinetics400")
  config.data.flow = ""  # the dearest: motion computed in the step
  shares = measures.stages(config)["stage_shares"]
  names = ("motion_clips", "motion_query", "motion_key", "contrast")
  extra = sum(share for name, share in shares.items() if name.startswith(names))
  assert 0.01 < extra < 0.15
  assert shares["visual_query backward"] > shares["visual_query"] > 0.2
