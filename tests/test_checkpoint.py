"""Checkpoints: exact, atomic, and clear when they cannot be used."""

import errno
import os
import resource
import shutil
import threading

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from motion_jax.config import UserError, completed
from motion_jax.data.storage import StorageError
from motion_jax.scale import hosts, sharding
from motion_jax.training import runs, state
from motion_jax.training.checkpoint import Checkpoints

CONFIG = completed({"model": {"name": "tiny", "shape": [1, 2]}})
METHOD, OPTIMIZER = tiny.Regression(), optax.adam(1e-2)


def fresh(seed=0):
  return state.create(METHOD, OPTIMIZER, jax.random.key(seed), sharding.make_mesh())


def data():
  return iter(grain.MapDataset.range(100).seed(0).shuffle().repeat().to_iter_dataset())


def trained(steps, current=None, first=0):
  step = state.make_train_step(
    METHOD, OPTIMIZER, jax.random.key(9), sharding.make_mesh()
  )
  current = current or fresh()
  for index in range(first, first + steps):
    current, _ = step(current, tiny.batch(index))
  return current


def leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_a_restored_run_goes_on_bit_for_bit(tmp_path):
  batches = data()
  current = trained(3)
  for _ in range(3):
    next(batches)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(current, batches, CONFIG, {})
  # The step donates the saved arrays while they may still be on their way to disk.
  straight = trained(4, current, first=3)
  upcoming = [next(batches) for _ in range(3)]
  checkpoints.wait()
  checkpoints.close()

  again = Checkpoints(tmp_path)
  assert again.latest_step() == 3
  assert again.config(3) == CONFIG
  moved = data()
  resumed = trained(4, again.restore(3, fresh(seed=5), moved), first=3)
  for one, other in zip(leaves(straight), leaves(resumed), strict=True):
    np.testing.assert_array_equal(one, other)
  assert [next(moved) for _ in range(3)] == upcoming


def test_the_best_and_the_latest_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2, best="eval/score")
  current = fresh()
  scores = [0.1, 0.9, None, 0.3, 0.2]
  for index, score in enumerate(scores):
    at = current.replace(step=jnp.asarray(index + 1))
    metrics = {} if score is None else {"eval/score": score}
    checkpoints.save(at, data(), CONFIG, metrics)
  checkpoints.wait()
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]
  assert checkpoints.latest_step() == 5


def test_a_training_deletes_what_a_killed_one_has_left(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(trained(1), data(), CONFIG, {})
  checkpoints.close()
  half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
  shutil.copytree(tmp_path / "checkpoints" / "1", half)
  Checkpoints(tmp_path).close()  # a reader; the training may be at work
  assert half.exists()
  checkpoints = Checkpoints(tmp_path, clean=True)
  assert checkpoints.latest_step() == 1
  checkpoints.save(trained(2), data(), CONFIG, {})  # when all is gone
  checkpoints.close()
  assert {path.name for path in half.parent.iterdir()} == {"1", "2"}


def test_weights_alone_can_be_restored(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  current = trained(2)
  checkpoints.save(current, data(), CONFIG, {})
  checkpoints.wait()
  other = fresh(seed=5)
  params, aux = checkpoints.restore_weights(2, other.params, other.aux)
  np.testing.assert_array_equal(params["kernel"], current.params["kernel"])
  assert int(aux["calls"]) == 2


def test_another_network_is_refused(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(trained(1), data(), CONFIG, {})
  checkpoints.wait()
  larger = fresh().replace(params={"kernel": jnp.zeros((5, 1))})
  with pytest.raises(UserError, match="another network"):
    checkpoints.restore(1, larger, data())
  renamed = fresh().replace(params={"weights": jnp.zeros((3, 1))})
  with pytest.raises(UserError, match="another network"):
    checkpoints.restore(1, renamed, data())


def test_a_full_disk_leaves_the_previous_checkpoint_valid(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  first = trained(1)
  checkpoints.save(first, data(), CONFIG, {})
  checkpoints.wait()
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    with pytest.raises(UserError, match="step 1 is complete"):
      checkpoints.save(first.replace(step=jnp.asarray(2)), data(), CONFIG, {})
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  again = Checkpoints(tmp_path)
  assert again.latest_step() == 1
  restored = again.restore(1, fresh(seed=5), data())
  np.testing.assert_array_equal(restored.params["kernel"], first.params["kernel"])


def test_a_network_without_statistics_is_saved_and_restored(tmp_path):
  current = trained(2).replace(aux={"frozen": {}, "stats": {}})
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(current, data(), CONFIG, {})
  checkpoints.wait()
  other = fresh(seed=5).replace(aux=current.aux)
  restored = checkpoints.restore(2, other, data())
  params, aux = checkpoints.restore_weights(2, other.params, other.aux)
  for found in (restored.params, params):
    np.testing.assert_array_equal(leaves(found)[0], leaves(current.params)[0])
  assert restored.aux == aux == current.aux


def test_a_checkpoint_that_another_process_sees_is_waited_for(tmp_path, monkeypatch):
  checkpoints, folder = Checkpoints(tmp_path), tmp_path / "checkpoints"
  checkpoints.save(trained(1), data(), CONFIG, {})
  checkpoints.wait()
  checkpoints.close()
  # Another process sees that of step 2, too, which this one sees a moment later.
  monkeypatch.setattr(
    hosts, "largest", lambda own: isinstance(own, bool) or max(own, 2)
  )
  monkeypatch.setattr(hosts, "_SHARED_SECONDS", 1)
  with pytest.raises(
    UserError, match=r"sees the checkpoints \[1\].*another one sees 2"
  ):
    Checkpoints(tmp_path)
  late = threading.Timer(0.3, shutil.copytree, (folder / "1", folder / "2"))
  late.start()
  assert Checkpoints(tmp_path).latest_step() == 2
  late.join()


def test_a_misspelt_run_is_answered_with_the_nearest_one(tmp_path):
  (tmp_path / "mosi-folder" / "checkpoints").mkdir(parents=True)
  with pytest.raises(UserError, match=r"another folder such as .*/mosi-folder$"):
    runs.locate(tmp_path / "mosi-foldr")
  with pytest.raises(UserError, match=r"give another folder$"):
    runs.locate(tmp_path / "arrow")


@pytest.mark.parametrize(
  ("number", "expected", "fix"),
  [
    (errno.ESTALE, StorageError, "when it is back"),
    (errno.EIO, StorageError, "when it is back"),
    (errno.ENOSPC, UserError, "free some space and run the same command again"),
    (errno.EACCES, UserError, "; run the same command again"),
  ],
)
def test_why_a_checkpoint_cannot_be_written_decides_the_fix(
  tmp_path, number, expected, fix
):
  def write():
    raise ValueError("commit failed") from OSError(number, os.strerror(number))

  def told():  # libraries keep the text alone
    raise ValueError(f"commit failed: {os.strerror(number)}")

  checkpoints = Checkpoints(tmp_path)
  for failing in (told, write):
    with pytest.raises(expected, match=fix):
      checkpoints._write(failing)
