"""The launcher of the mini protocol: its commands, and its table of finished runs."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from commands import parsed
from conftest import ROOT


def launch(*arguments, code=0):
  script = ROOT / "launch" / "mini_protocol.py"
  found = subprocess.run(
    [sys.executable, script, *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert found.returncode == code, found.stderr
  return found.stdout + found.stderr * bool(code)


def finish(folder, name, **values):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  named = {f"eval/{key.replace('__', '/')}": value for key, value in values.items()}
  path.write_text(json.dumps(named))


@pytest.mark.parametrize(
  "lists", [[], ["--path=v", "--train_list=a", "--heldout_list=b"]]
)
def test_every_command_is_one_that_main_understands(lists):
  lines = launch("--dry_run", "--seeds=2", *lists).splitlines()
  workdirs, clips, scratches = [], {}, set()
  lines = lines[bool(lists) :]  # the first is for the baselines
  for line in lines:
    program, *words = shlex.split(line)
    assert [program, *words[:2]] == [sys.executable, "-m", "motion_jax.main"]
    code, config, workdir = parsed(words[2:])
    assert code == 0, line
    workdirs.append(workdir)
    assert config.seed == int(re.search(r"seed(\d)", workdir)[1])
    clips[workdir] = what_it_sees(config)
    if workdir.endswith("finetune"):
      pretrained = workdir.replace("finetune", "pretrain")
      if config.init_from == "scratch":
        scratches.add(clips[workdir])
      else:
        assert config.init_from == pretrained
        assert clips[pretrained] == clips[workdir]
    if lists:
      given = (config.data.path, config.data.train_list, config.data.heldout_list)
      assert given == ("v", "a", "b")
  assert len({*workdirs}) == len(lines) == 2 * (2 + 2 * 14)
  assert scratches == {*clips.values()}


def what_it_sees(config):
  """Network and clips of a run."""
  model, method = config.model, config.method
  clip = (method.frames, method.size, config.data.interval, config.data.fps)
  return (model.name, model.width, *clip)


def test_finished_runs_become_a_table_and_are_not_run_again(tmp_path):
  root, random = tmp_path / "synthetic_actions", "random_init__retrieval_r1"
  for seed, scratch, top1 in ((0, 0.10, 0.30), (1, 0.20, 0.40)):
    finish(root, f"scratch/seed{seed}-finetune/summary.json", top1=scratch)
    for row, chance in (("mosi-xy", 0.1), ("mosi-x", 0.5)):
      finish(
        root,
        f"{row}/seed{seed}-pretrain/summary.json",
        retrieval_r1=top1,
        **{random: chance},
      )
      finish(root, f"{row}/seed{seed}-finetune/summary.json", top1=top1 + 0.1)
  finish(
    root, "mosi-xy/seed2-finetune/summary.json", top1=0.9
  )  # of a seed that is not asked for
  (tmp_path / "synthetic_actions/mosi-x/seed1-pretrain/summary.json").write_text("{}")
  text = launch(f"--root={tmp_path}", "--seeds=2", "--rows=scratch,mosi xy,mosi x")
  assert text.splitlines()[-3:] == [
    "| scratch | - | 10.0 ± 0.0 | - | - | 15.0 ± 7.1 | 2 |",
    "| mosi xy | - | 35.0 ± 7.1 | - | - | 45.0 ± 7.1 | 2 |",
    "| mosi x | - | 30.0 (1) | - | - | 45.0 ± 7.1 | 2 |",
  ]
  assert "[" not in text  # no run was started

  # Random initialisation stands in its network's row, even if that is not asked for.
  run = "mosi-xy-r2d3d_18/seed0"
  finish(root, f"{run}-pretrain/summary.json", retrieval_r1=0.6, **{random: 0.2})
  finish(root, f"{run}-finetune/summary.json", top1=0.7)
  text = launch(f"--root={tmp_path}", "--seeds=1", "--rows=mosi xy r2d3d_18,mosi xy")
  assert text.splitlines()[-4:] == [
    "| mosi xy r2d3d_18 | - | 60.0 | - | - | 70.0 | 1 |",
    "| mosi xy | - | 30.0 | - | - | 40.0 | 1 |",
    "| scratch r2d3d_18 | - | 20.0 | - | - | - | 1 |",
    "| scratch | - | 10.0 | - | - | - | 1 |",
  ]


GROUPS = ("--path=v", "--groups=/([a-z]+)_")


def test_groups_are_left_out_of_what_an_earlier_table_has_pretrained(tmp_path):
  earlier = tmp_path / "earlier"
  options = (*GROUPS, f"--pretrained={earlier}", "--seeds=1", "--rows=mosi xy")
  length = "--tuning=160 steps"
  baselines, *lines = launch("--dry_run", length, *options).splitlines()
  assert "motion_baselines.py v '--groups=/([a-z]+)_' --out=" in baselines
  commands = [parsed(shlex.split(line)[3:]) for line in lines]
  assert [workdir.rpartition("-")[2] for _, _, workdir in commands] == [
    "evaluate",
    "finetune",
  ]
  for code, config, _ in commands:
    assert code == 0 and config.data.path == "v"
    assert config.init_from == str(earlier / "mosi-xy" / "seed0-pretrain")
  assert commands[1][1].train.duration == "160 steps"
  asked = commands[0][1].eval
  assert (asked.groups, asked.max_videos) == ("/([a-z]+)_", 0)
  assert "pretrainings are not finished" in launch(*options, code=1)
  assert "--groups are of the folder" in launch("--groups=x", code=1)


def test_tables_of_other_pretrainings_and_tunings_are_other_folders(tmp_path):
  short = ("--dry_run", f"--root={tmp_path}", "--seeds=1", "--rows=mosi xy")
  few, folders = "--tuning=160 steps", set()
  first, second = (f"--pretrained={tmp_path}/{x}/synthetic_actions" for x in "ab")
  for options in ([], [few], [first], [second], [second, few], [second, "--path=v"]):
    line = launch(*short, *options).splitlines()[-1]
    folders.add(re.search(rf"--workdir={tmp_path}/([^/]+)", line)[1])
  assert len(folders) == 6 and "synthetic_actions" in folders
  line = launch(*short, f"--pretrained={tmp_path}/b/../a/synthetic_actions")
  assert re.search(rf"--workdir={tmp_path}/([^/]+)", line)[1] in folders


def test_the_table_of_groups_has_their_scores_and_the_baselines(tmp_path):
  earlier, root = tmp_path / "earlier", tmp_path / "runs"
  options = (*GROUPS, f"--pretrained={earlier}", f"--root={root}", "--seeds=1")
  options = (*options, "--rows=mosi xy")
  finish(
    earlier, "mosi-xy/seed0-pretrain/summary.json", pretext_accuracy=0.7, knn_top1=0.9
  )
  line = launch("--dry_run", *options).splitlines()[-1]
  folder = re.search(rf"{root}/([^/]+)", line)[1]
  assert re.fullmatch("v-.{6}-after-earlier", folder)
  found = root / folder
  scores = dict(retrieval_r1=0.5, knn_top1=0.4, random_init__knn_top1=0.3)
  finish(found, "mosi-xy/seed0-evaluate/evaluation.json", **scores)
  finish(found, "mosi-xy/seed0-finetune/summary.json", top1=0.6)
  values = {"still_r1": 0.1, "still_knn": 0.2, "flow_r1": 0.3, "flow_knn": 0.4}
  values |= {f"{name}_groups": value + 0.5 for name, value in values.items()}
  (found / "motion_baselines.json").write_text(json.dumps(values))
  assert launch(*options).splitlines()[-4:] == [
    "| mosi xy | 70.0 | 50.0 | 40.0 | - | 60.0 | 1 |",
    "| scratch | - | - | 30.0 | - | - | 1 |",
    "| still picture | - | 60.0 | 70.0 | - | - | 1 |",
    "| optical flow | - | 80.0 | 90.0 | - | - | 1 |",
  ]
