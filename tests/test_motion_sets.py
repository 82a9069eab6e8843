"""Motion sets in use: found by data sets and configs; mistakes and their messages."""

import inspect
import json
import pathlib
import shutil
import subprocess
import sys

import flow_sets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import parsed
from small_modist import smoke, use_tiny_networks
from test_config import CONFIGS, load

from motion_jax.commands import command
from motion_jax.config import UserError
from motion_jax.data import disk, flow_records, open_source
from motion_jax.data.flow_records import flow_folder, open_flow
from motion_jax.flow_sets import batches, job, prepare_flow
from motion_jax.methods import make_method
from motion_jax.models import raft
from motion_jax.models.raft_weights import _named_variables
from motion_jax.models.torch_file import save_torch
from motion_jax.ops import flow, motion_inputs
from motion_jax.train import train


@pytest.fixture
def videos(tmp_path, monkeypatch):
  return flow_sets.write_videos(tmp_path / "videos", monkeypatch)


def test_scales_are_those_of_the_operations():
  assert {*flow_records.METHODS} == {*batches.FLOWS}
  stored = np.array([[[[1, 128]]], [[[255, 128]]]], np.uint8)
  box = jnp.array([[0, 0, 1, 1]])
  flow = motion_inputs.stored_motion(stored[None, :1], box, kind="flow", size=1)
  np.testing.assert_allclose(flow[0, 0, 0, 0], [-1, 0], atol=1e-6)


def test_what_is_missing_or_stale_is_told_with_the_command(videos):
  with pytest.raises(UserError) as error:
    flow_sets.reopen(videos)
  command = (
    f"python -m motion_jax.prepare flow --dataset={videos} --method=variational "
    f"--store=edges --interval=5 --data_dir={videos.parent / 'data'}"
  )
  assert command in str(error.value)
  path = flow_sets.prepare(videos)
  with pytest.raises(
    UserError, match=r"no raft_edges_5 .*has variational_edges_5"
  ) as e:
    flow_sets.reopen(videos, method="raft")
  assert "--weights=" in str(e.value)
  with pytest.raises(UserError, match="no variational_edges_3 motion"):
    flow_sets.reopen(videos, interval=3)
  with pytest.raises(UserError, match="short_side=48, not with short_side=64; delete"):
    flow_sets.prepare(videos, short_side=64)
  shutil.copy(videos / "a.mp4", videos / "new.mp4")
  with pytest.raises(UserError, match=r"another list of videos: 1 of 5 .*'new.mp4'"):
    flow_sets.reopen(videos)
  with pytest.raises(UserError, match=r"(?s)videos=4, fingerprint.*delete it"):
    flow_sets.prepare(videos)
  path.rename(path.with_name("variational_edges_3"))
  with pytest.raises(UserError, match=r"'interval': 5\}, not .*'interval': 3\}"):
    flow_sets.reopen(videos, interval=3)


def test_motion_of_another_resolution_is_refused_or_asked_for(videos, caplog):
  with pytest.raises(UserError, match="--interval=5 --short_side=64 --data_dir"):
    flow_sets.reopen(videos, short_side=64)
  flow_sets.prepare(videos)
  with pytest.raises(UserError, match=r"(?s)_side': 48\}, not .*_side': 64\}.*=48"):
    flow_sets.reopen(videos, short_side=64)
  with caplog.at_level("INFO"):
    flow_sets.reopen(videos, short_side=48)
  assert "edges of variational flow over 5 frames, short side 48" in caplog.text
  flow_sets.reopen(videos)  # as MAS, whose labels do not depend on it


def test_a_set_that_was_copied_in_part_is_refused_at_the_start(videos, monkeypatch):
  monkeypatch.setattr(job, "_SHARD", 2)
  path = flow_sets.prepare(videos)
  file = path / "flow-00001-of-00002.array_record"
  whole = file.read_bytes()
  message = (
    r"1 of 2 files are missing or shorter.*00001-of.*delete it, then run\npython"
  )
  file.write_bytes(whole[:-1])
  with pytest.raises(UserError, match=message):
    flow_sets.reopen(videos)
  file.unlink()
  with pytest.raises(UserError, match=message):
    flow_sets.reopen(videos)
  index = json.loads((path / "index.json").read_text())
  del index["sizes"]  # as in older sets
  disk.write_json(path / "index.json", index)
  with pytest.raises(UserError, match=message):
    flow_sets.reopen(videos)
  file.write_bytes(whole)
  assert len(flow_sets.reopen(videos)[1]) == 4


@pytest.mark.parametrize(
  ("videos", "begun", "files"),
  [(64, 0, 1), (600, 0, 10), (240_000, 0, 1022), (240_000, 3750, 3750)],
)
def test_a_set_of_many_videos_has_not_many_files(tmp_path, videos, begun, files):
  options = dict(settings={}, weights="", batch_size=1, threads=1)
  made = job.FlowJob(range(videos), tmp_path / "set", **options)
  if begun:  # by an earlier version, which had 64 videos in every file
    made.partial.mkdir()
    (made.partial / f"flow-00007-of-{begun:05d}.json").touch()
  assert len(made.stems) == files


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"method": "raft"}, "needs --weights=FILE"),
    ({"method": "raft", "weights": "/no/file.pth"}, "No such file"),
    ({"method": "raft", "weights": __file__}, "not a readable PyTorch checkpoint"),
    ({"method": "tvl1"}, "known: raft, variational"),
    ({"interval": 0}, "at least 1"),
    ({"iterations": -1}, "iterations=-1 at least 0"),
    ({"process_index": 2, "process_count": 2}, "process_index=2"),
  ],
)
def test_wrong_arguments_are_one_message(videos, options, message):
  with pytest.raises(UserError, match=message):
    flow_sets.prepare(videos, **options)


def test_all_splits_of_a_data_set_share_its_motion(tmp_path, monkeypatch):
  monkeypatch.setitem(batches.FLOWS, "variational", flow_sets.stand_in)
  name, data_dir = "synthetic_actions:tiny", str(tmp_path / "data")
  config = _config(name, data_dir)
  with pytest.raises(UserError, match="there is no variational_edges_5 motion"):
    make_method(config).sampler("train")
  _ensure(config)
  for split in ("train", "heldout"):
    source = open_source(name, split=split, data_dir=data_dir)
    flow = open_flow(source, **flow_sets.KIND, data_dir=data_dir)
    assert all(source.id_of(i) in flow for i in range(len(source)))
  assert len(flow) == 30 and flow.description["short_side"] == 64
  folder = flow_folder(source, *flow_sets.KIND.values(), data_dir)
  assert folder == flow.path and "synthetic_actions/tiny/" in str(folder)
  for split in ("train", "heldout"):
    sampler = make_method(config).sampler(split)
    sample = sampler(source[0], np.random.default_rng(0))
    assert sample["motion"].shape == (2, 4, 40, 40, 1)
  before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
  _ensure(config)
  assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir()}


def test_the_variational_flow_takes_no_weights():
  with pytest.raises(UserError, match="has no weights"):
    batches.FLOWS["variational"]("raft-things.pth", {})


@pytest.mark.parametrize(
  ("section", "changes"),
  [
    ("data", {"flow": ""}),
    ("data", {"flow": "raft"}),
    ("data", {"name": "ucf101"}),
    ("method", {"loss_motion": 0.0, "loss_cross": 0.0}),
  ],
)
def test_nothing_is_computed_unasked(tmp_path, section, changes):
  config = _config("synthetic_actions:tiny", str(tmp_path / "data"))
  config[section].update(changes)
  _ensure(config)
  assert not (tmp_path / "data/flow").exists()
  if section == "method":
    assert make_method(config).sampler("train").motion_frames == 0
  elif changes.get("flow") == "":
    assert "motion_pairs" in make_method(config).sampler("train").empty()


def _config(name, data_dir):
  config = smoke()
  config.data.update(name=name, data_dir=data_dir, fps=0.0, canvas=(40, 40))
  config.data.update(flow_short_side=64, flow_interval=5)
  return config


def _ensure(config):
  wanted = make_method(config).prepared_motion()
  prepare_flow.ensure_flow(config.data, wanted)


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ("method.queue_size=100", "method.queue_size=100 must be"),
    ("method.motion=frame_difference", "set data.flow=''"),
    ("train.duration=soon", "is not a duration"),
  ],
)
def test_settings_are_checked_before_motion_is_computed(
  tmp_path, monkeypatch, capsys, setting, message
):
  use_tiny_networks(monkeypatch.setattr)
  monkeypatch.setattr("motion_jax.train.ensure_flow", None)  # is not called
  words = ["--config=configs/modist.py", "--config.data.name=synthetic_actions:tiny"]
  words += [f"--config.data.data_dir={tmp_path}", f"--config.{setting}"]
  code, config, workdir = parsed([*words, f"--workdir={tmp_path / 'run'}"])
  assert code == 0
  assert command.run(lambda: train(config, pathlib.Path(workdir)), words) == 2
  assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("word", ["folder", "kinetics400"])
def test_recipes_take_what_prepare_makes_without_being_told(word):
  config = load(CONFIGS / "modist.py").get_config(word)
  made = inspect.signature(prepare_flow.prepare_flow).parameters["short_side"].default
  assert config.data.flow_short_side == made


def test_raft_weights_become_a_flow(tmp_path):
  path = tmp_path / "raft-small.pth"
  _write_raft(path)
  solver = {"size": "small", "iterations": 2}
  flow, parameters = batches.FLOWS["raft"](str(path), solver)
  assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) == 990_162
  frames = jax.ShapeDtypeStruct((1, 130, 200, 3), jnp.uint8)
  result = jax.eval_shape(flow, parameters, frames, frames)
  assert result.shape == (1, 130, 200, 2)


def test_the_solver_of_a_set_is_kept_and_compared(videos, monkeypatch):
  parameters = inspect.signature(flow.variational_flow).parameters.values()
  defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
  assert batches.SOLVERS["variational"] == defaults
  seen = []

  def stand_in(weights, solver):
    seen.append(solver["iterations"])
    return flow_sets.stand_in(weights, solver)

  monkeypatch.setitem(batches.FLOWS, "variational", stand_in)
  flow_sets.prepare(videos, iterations=3)
  assert seen == [3]
  with pytest.raises(UserError, match=r"'iterations': 3,.*, not .*'iterations': 10,"):
    flow_sets.prepare(videos)
  with pytest.raises(UserError, match="size=small is one of RAFT"):
    flow_sets.prepare(videos, size="small")


def test_weights_of_the_other_size_are_refused_before_anything_is_written(
  videos, monkeypatch, caplog
):
  path = videos.parent / "raft-small.pth"
  _write_raft(path)
  monkeypatch.setattr(
    batches, "raft_flow", lambda model, *pair: flow_sets.difference(*pair[:2])
  )
  options = {"method": "raft", "weights": str(path)}
  with pytest.raises(UserError, match="of RAFT 'small', not 'large': give --size=sm"):
    flow_sets.prepare(videos, **options)
  with caplog.at_level("INFO"):
    made = flow_sets.prepare(videos, size="small", **options)
  assert "RAFT small, 990162 parameters" in caplog.text
  description = json.loads((made / "description.json").read_text())
  assert description["solver"] == {"size": "small", "iterations": 20}
  with pytest.raises(UserError, match=r"solver=.*'small'.*, not with solver=.*'large'"):
    flow_sets.prepare(videos, **options)
  del description["solver"]  # as in older sets
  disk.write_json(made / "description.json", description)
  with pytest.raises(UserError, match="made with unknown solver, not with"):
    flow_sets.prepare(videos, size="small", **options)


def _write_raft(path):
  state = {}
  for name, variable in _named_variables(raft.Raft("small")).items():
    value = np.asarray(variable[...])
    if value.ndim == 4:
      value = np.ascontiguousarray(value.transpose(3, 2, 0, 1))
    state[f"module.{name}"] = value
  save_torch(path, state)


@pytest.mark.slow
def test_mistakes_on_the_command_line_end_with_2(tmp_path):
  command = [sys.executable, "-m", "motion_jax.prepare", "flow", "--dataset=ucf101"]
  command += ["--method=variational", f"--data_dir={tmp_path}"]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 2 and "Traceback" not in done.stderr
  assert done.stderr.startswith("error: ucf101 is not prepared in")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "required: --dataset, --method"),
    (["--dataset=x", "--method=tvl1"], "choose from '?raft'?, '?variational'?"),
    (["--dataset=x", "--method=raft", "--sauce=1"], "unrecognized.*--sauce"),
  ],
)
def test_unknown_flags_are_user_errors(arguments, message):
  with pytest.raises(UserError, match=message):
    prepare_flow.parse(arguments)
