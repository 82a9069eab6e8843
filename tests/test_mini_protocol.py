"""The launcher of the mini protocol: its commands, and its table of finished runs."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from commands import parsed
from conftest import ROOT


def launch(*arguments):
  script = ROOT / "launch" / "mini_protocol.py"
  found = subprocess.run(
    [sys.executable, script, *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  return found.stdout


@pytest.mark.parametrize(
  "lists", [[], ["--path=v", "--train_list=a", "--heldout_list=b"]]
)
def test_every_command_is_one_that_main_understands(lists):
  lines = launch("--dry_run", "--seeds=2", *lists).splitlines()
  workdirs, clips, scratches = [], {}, set()
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
  assert len({*workdirs}) == len(lines) == 2 * (2 + 2 * 12)
  assert scratches == {*clips.values()}


def what_it_sees(config):
  """Network and clips of a run."""
  model, method = config.model, config.method
  clip = (method.frames, method.size, config.data.interval, config.data.fps)
  return (model.name, model.width, *clip)


def test_finished_runs_become_a_table_and_are_not_run_again(tmp_path):
  def finish(name, **values):
    folder = tmp_path / "synthetic_actions" / name
    folder.mkdir(parents=True)
    values = {key.replace("__", "/"): value for key, value in values.items()}
    (folder / "summary.json").write_text(json.dumps(values))

  random = "eval__random_init__retrieval_r1"
  for seed, scratch, top1 in ((0, 0.10, 0.30), (1, 0.20, 0.40)):
    finish(f"scratch/seed{seed}-finetune", eval__top1=scratch)
    for row, chance in (("mosi-xy", 0.1), ("mosi-x", 0.5)):
      finish(f"{row}/seed{seed}-pretrain", eval__retrieval_r1=top1, **{random: chance})
      finish(f"{row}/seed{seed}-finetune", eval__top1=top1 + 0.1)
  finish("mosi-xy/seed2-finetune", eval__top1=0.9)  # of a seed that is not asked for
  (tmp_path / "synthetic_actions/mosi-x/seed1-pretrain/summary.json").write_text("{}")
  text = launch(f"--root={tmp_path}", "--seeds=2", "--rows=scratch,mosi xy,mosi x")
  assert text.splitlines()[-3:] == [
    "| scratch | - | 10.0 ± 0.0 | - | 15.0 ± 7.1 | 2 |",
    "| mosi xy | - | 35.0 ± 7.1 | - | 45.0 ± 7.1 | 2 |",
    "| mosi x | - | 30.0 (1) | - | 45.0 ± 7.1 | 2 |",
  ]
  assert "[" not in text  # no run was started

  # Random initialisation stands in its network's row, even if that is not asked for.
  finish("modist/seed0-pretrain", eval__retrieval_r1=0.6, **{random: 0.2})
  finish("modist/seed0-finetune", eval__top1=0.7)
  text = launch(f"--root={tmp_path}", "--seeds=1", "--rows=modist,mosi xy")
  assert text.splitlines()[-4:] == [
    "| modist | - | 60.0 | - | 70.0 | 1 |",
    "| mosi xy | - | 30.0 | - | 40.0 | 1 |",
    "| scratch r3d_10 | - | 20.0 | - | - | 1 |",
    "| scratch | - | 10.0 | - | - | 1 |",
  ]
