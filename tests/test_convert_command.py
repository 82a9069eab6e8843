"""PyTorch files become runs that other commands take."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT
from flax import nnx
from test_config import CONFIGS, load
from test_convert import classifier, encoder

from motion_jax import build_model, evaluate, export, load_encoder
from motion_jax.config import UserError
from motion_jax.convert import convert as convert_file
from motion_jax.models import convert
from motion_jax.train import train
from motion_jax.training import starting_point

VIDEO = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)


@pytest.fixture
def saved(tmp_path):
  """Writes a network under the names of a layout; (the network, its file)."""

  def save(name, layout, without=()):
    module = build_model(name, rngs=nnx.Rngs(5), width=8)
    module.eval()
    arrays = convert.export_weights(module, layout)
    arrays = {k: v for k, v in arrays.items() if not k.endswith(without)}
    convert.save_torch(tmp_path / "weights.pth", arrays)
    return module, tmp_path / "weights.pth"

  return save


def smoke(name, network="r2d3d_18"):
  config = load(CONFIGS / f"{name}.py").get_config("smoke")
  config.model.name, config.model.width = network, 8
  return config


@pytest.mark.slow
@pytest.mark.parametrize(
  "method",
  ["mosi", *(pytest.param(x, marks=pytest.mark.long) for x in ("modist", "mas"))],
)
def test_an_official_file_becomes_a_run(method, saved, tmp_path):
  module, path = saved("r2d3d_18", "tada")
  convert_file(path, smoke(method), tmp_path / "run")
  found = load_encoder(tmp_path / "run")
  normalised = (VIDEO / 255 - np.array(found.config.method.mean)) / np.array(
    found.config.method.std
  )
  expected = jax.jit(lambda video: module(video))(normalised.astype(np.float32))
  np.testing.assert_allclose(found(VIDEO), expected, atol=1e-5)
  with pytest.raises(UserError, match="holds a run already"):
    convert_file(path, smoke(method), tmp_path / "run")
  with pytest.raises(UserError, match=r"without its pretext head.*evaluate\.py"):
    evaluate.evaluate(smoke(method), tmp_path / "run")
  with pytest.raises(UserError, match=r"no run; .* motion_jax\.convert --weights="):
    load_encoder(path)


@pytest.mark.slow
def test_the_command_makes_a_run(saved, tmp_path):
  module, path = saved("r3d_18", "torchvision")
  command = [sys.executable, "-m", "motion_jax.convert", f"--weights={path}"]
  command += ["--config=configs/mosi.py:smoke", f"--workdir={tmp_path / 'run'}"]
  command += ["--config.model.name=r3d_18", "--config.model.width=8"]
  command += ["--config.method.std=(0.2,0.2,0.3)"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "names of torchvision; loaded" in done.stderr
  found = load_encoder(tmp_path / "run")
  jax.tree.map(
    np.testing.assert_array_equal, nnx.state(found.module), nnx.state(module)
  )
  method = found.config.method
  assert method.mean == [0.43216, 0.394666, 0.37645]  # of torchvision's video networks
  assert method.std == [0.2, 0.2, 0.3]  # the user's
  done = subprocess.run(command[:-1], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2 and "holds a run already" in done.stderr


@pytest.mark.slow
def test_a_pretext_task_comes_back_whole(tmp_path):
  state = convert.export_weights(encoder("r2d3d_18"), "tada")
  head = convert.export_weights(classifier(dim=32, classes=9), "tada")
  convert.save_torch(tmp_path / "official.pth", state | head)
  convert_file(tmp_path / "official.pth", smoke("mosi"), tmp_path / "run")
  export.export(str(tmp_path / "run"), str(tmp_path / "again.pth"))
  found = convert.load_torch(tmp_path / "again.pth")
  assert [*found] == [*state, *head]
  for name, value in (state | head).items():
    np.testing.assert_array_equal(found[name], value)
  assert "encoder_only" not in load_encoder(tmp_path / "run").config
  with pytest.raises(UserError, match=r"holds weights alone.* in another --workdir"):
    train(smoke("mosi"), tmp_path / "run")


def test_a_file_of_dpc_has_no_running_statistics(saved, tmp_path, caplog):
  without = ("running_mean", "running_var")
  _, path = saved("r2d3d_18_dpc", "dpc", without)
  convert_file(
    path, smoke("mosi", "r2d3d_18_dpc"), tmp_path / "run", own=("method.std",)
  )
  assert "no running statistics" in caplog.text
  found = load_encoder(tmp_path / "run")
  stats = nnx.state(found.module, nnx.BatchStat)
  assert {float(array.mean()) for array in jax.tree.leaves(stats)} == {0.0, 1.0}
  assert found.config.method.mean == [0.485, 0.456, 0.406]  # DPC's
  assert found.config.method.std == [0.225, 0.225, 0.225]  # the user's


def read(tmp_path, state, name="r3d_18"):
  """Reads arrays of a network as a file does; its module without values, the report."""
  convert.save_torch(tmp_path / "weights.pth", state)
  target = nnx.eval_shape(lambda: build_model(name, rngs=nnx.Rngs(0), width=8))
  return starting_point.load_torch_encoder(tmp_path / "weights.pth", target)


def test_an_incomplete_file_may_be_of_another_network(tmp_path):
  state = convert.export_weights(encoder("r3d_18"), "torchvision")
  del state["layer4.1.conv2.0.weight"]
  message = r"1 missing \(layer4.*\); is it .*model\.name=r2d3d_18\|.*the whole file"
  with pytest.raises(UserError, match=message):
    read(tmp_path, state)


def test_arrays_that_no_head_explains_are_named(tmp_path, caplog):
  state = convert.export_weights(encoder("r3d_18"), "torchvision")
  known = {"fc.weight": np.zeros((5, 64)), "stem.1.num_batches_tracked": np.zeros(1)}
  read(tmp_path, state | known)
  assert not caplog.records
  others = {f"extra.{index}": np.zeros(1) for index in range(7)}
  read(tmp_path, state | known | others)
  (record,) = caplog.records
  assert record.levelname == "WARNING"
  assert "7 arrays have no place" in record.message
  assert record.message.endswith("extra.0, extra.1, extra.2, extra.3, extra.4, ...")


def test_fine_tuning_is_told_of_another_normalisation(tmp_path, caplog):
  arrays = convert.export_weights(encoder("r3d_18"), "torchvision")
  convert.save_torch(tmp_path / "weights.pth", arrays)
  config = smoke("finetune", "r3d_18")
  config.init_from = str(tmp_path / "weights.pth")
  target = nnx.eval_shape(lambda: build_model("r3d_18", rngs=nnx.Rngs(0), width=8))
  starting_point.load_encoder_of(config, target)
  assert "--config.method.mean='(0.43216, 0.394666, 0.37645)' --" in caplog.text
  caplog.clear()
  config.method.mean = (0.43216, 0.394666, 0.37645)
  config.method.std = (0.22803, 0.22145, 0.216989)
  starting_point.load_encoder_of(config, target)
  assert not caplog.records


def test_dpcs_batch_norm_has_its_epsilon(tmp_path, caplog):
  state = convert.export_weights(encoder("r2d3d_18"), "dpc")
  state = {f"module.resnet.{name}": value for name, value in state.items()}
  state["module.convrnn.reset.bias"] = np.zeros(3)
  module, report = read(tmp_path, state, "r2d3d_18_dpc")
  assert {norm.eps for path in module.paths() for norm in path.norms} == {1e-5}
  assert report.layout == "dpc" and not caplog.records
  read(tmp_path, state, "r2d3d_18")
  assert "epsilon 1e-05, this network's 0.001: take " in caplog.text
  assert "--config.model.name=r2d3d_18_dpc" in caplog.text


def test_the_message_tells_which_array_does_not_fit(saved, tmp_path):
  _, path = saved("r2d3d_18", "tada")
  config = smoke("mosi")
  config.model.width = 16
  with pytest.raises(UserError, match=r"has shape .* the network needs"):
    convert_file(path, config, tmp_path / "run")
  with pytest.raises(UserError, match="config of a pretraining"):
    convert_file(path, smoke("finetune"), tmp_path / "run")
  _, deeper = saved("r2d3d_34", "dpc")
  with pytest.raises(UserError, match=r"no place for layer1\.2\.conv1.*a deeper"):
    convert_file(deeper, smoke("mosi"), tmp_path / "run")
