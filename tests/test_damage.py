"""A damaged checkpoint is told by its part, and the one before is a flag away."""

import shutil

import pytest
import tiny_main
from test_checkpoint import CONFIG, data, fresh, trained
from test_config import CONFIGS, load

from motion_jax import methods
from motion_jax.config import UserError
from motion_jax.train import train
from motion_jax.training.checkpoint import Checkpoints


def damaged(path, how):
  """Cuts a file in half, empties it or fills it with zeros; removes it or a folder."""
  if how == "gone":
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  else:
    content = path.read_bytes()
    size = {"cut": len(content) // 2, "empty": 0, "zeros": len(content)}[how]
    path.write_bytes(bytes(size) if how == "zeros" else content[:size])


DAMAGE = [
  *(("params/d/*", how) for how in ("cut", "empty", "zeros", "gone")),
  *(("optimizer/manifest.ocdbt", how) for how in ("cut", "empty", "gone")),
  ("aux/_METADATA", "cut"),
  ("loop/array_metadatas/*", "empty"),
  ("data/metadata", "zeros"),
  ("config/metadata", "empty"),
]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
  """Checkpoints of the steps 1, 2 and 3."""
  workdir = tmp_path_factory.mktemp("three")
  checkpoints, current = Checkpoints(workdir, keep=3), None
  for step in range(3):
    current = trained(1, current, first=step)
    checkpoints.save(current, data(), CONFIG, {})
  checkpoints.wait()
  return workdir


def read_all(checkpoints, step):
  checkpoints.config(step)
  return checkpoints.restore(step, fresh(seed=5), data())


@pytest.mark.parametrize(("file", "how"), DAMAGE)
def test_a_damaged_part_is_named_and_one_flag_goes_on_from_the_one_before(
  file, how, three, tmp_path
):
  shutil.copytree(three, tmp_path, dirs_exist_ok=True)
  folder = tmp_path / "checkpoints"
  for path in folder.glob(f"3/{file}"):
    damaged(path, how)
  checkpoints = Checkpoints(tmp_path)
  part = file.partition("/")[0]
  message = rf"step 3 .* is damaged: {part}: .*of step 2, is whole.*skip_damaged=True"
  with pytest.raises(UserError, match=message):
    read_all(checkpoints, 3)
  checkpoints.skip_damaged()
  assert checkpoints.latest_step() == 2
  assert int(read_all(checkpoints, 2).step) == 2
  assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
  assert (tmp_path / "damaged" / "3").is_dir()
  checkpoints.save(trained(3), data(), CONFIG, {})  # comes to step 3 again
  checkpoints.wait()
  assert checkpoints.steps() == [2, 3]


@pytest.mark.parametrize("part", ["params", "aux", "optimizer", "loop", "data"])
def test_a_part_that_is_missing_is_named(part, three, tmp_path):
  shutil.copytree(three, tmp_path, dirs_exist_ok=True)
  damaged(tmp_path / "checkpoints" / "3" / part, "gone")
  with pytest.raises(UserError, match=f"is damaged: {part}: missing; the one before"):
    Checkpoints(tmp_path).restore(3, fresh(), data())


def test_damaged_checkpoints_stay_when_there_is_no_good_one(three, tmp_path):
  shutil.copytree(three, tmp_path, dirs_exist_ok=True)
  for path in tmp_path.glob("checkpoints/*/params/manifest.ocdbt"):
    damaged(path, "empty")
  checkpoints = Checkpoints(tmp_path)
  with pytest.raises(UserError, match=r"damaged: params: .*no earlier one is whole"):
    checkpoints.restore(3, fresh(), data())
  with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
    checkpoints.skip_damaged()
  assert checkpoints.steps() == [1, 2, 3]


def test_nothing_is_put_aside_when_nothing_is_damaged(three, tmp_path):
  shutil.copytree(three, tmp_path, dirs_exist_ok=True)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.skip_damaged()
  assert checkpoints.steps() == [1, 2, 3]
  assert not (tmp_path / "damaged").exists()


@pytest.mark.slow
def test_a_training_goes_on_from_the_checkpoint_before_a_damaged_one(
  pictures, tmp_path, monkeypatch, caplog
):
  monkeypatch.setitem(methods.METHODS, "mosi", tiny_main.Pictures)
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  values = {"data.name": "folder", "data.path": str(pictures), "eval.probe": False}
  more = {"train.best": "", "train.checkpoint_every": "1 steps"}
  config.update_from_flattened_dict({**values, **more})
  train(config, tmp_path)
  expected = (tmp_path / "metrics.jsonl").read_bytes()
  for path in tmp_path.glob("checkpoints/3/optimizer/d/*"):
    damaged(path, "cut")
  with pytest.raises(UserError, match="skip_damaged=True"):
    train(config, tmp_path)
  config.train.skip_damaged = True
  caplog.set_level("INFO")
  train(config, tmp_path)
  assert "resumed at step 2" in caplog.text and "damaged/3" in caplog.text
  assert (tmp_path / "metrics.jsonl").read_bytes() == expected
  config.train.skip_damaged = False  # nor does the flag matter afterwards
  assert train(config, tmp_path) == {}
