"""When evaluations and checkpoints happen."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_config import CONFIGS, load

from motion_jax.config import UserError
from motion_jax.scale import sharding
from motion_jax.training import optim, state
from motion_jax.training.plan import check_batch, make_plan


def smoke(**train):
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.train.update(train)
  return config


def test_all_evaluators_are_due_less_often_than_the_first_ones_and_each_time_is_saved():
  config = smoke(duration="30 steps", checkpoint_every="7 steps")
  config.eval.update(every="5 steps", test_every="12 steps")
  plan = make_plan(config, examples=80)
  steps = range(1, 31)
  due = {step: "".join(plan.due(step, ["a", "b"], ["c"])) for step in steps}
  assert [s for s in steps if due[s] == "abc"] == [12, 24, 30]
  assert [s for s in steps if due[s] == "ab"] == [5, 10, 15, 20, 25]
  assert all(plan.is_checkpoint(step) for step in steps if due[step])
  assert {7, 14, 21, 28} <= {s for s in steps if plan.is_checkpoint(s)}


@pytest.mark.parametrize(
  ("groups", "nearest"), [(5, "4 or 6"), (7, "6 or 12"), (99, "12")]
)
def test_groups_that_do_not_divide_a_batch_are_told_with_the_nearest(groups, nearest):
  config = smoke(batch_size=12)
  config.model.bn_groups = groups
  with pytest.raises(UserError, match=f"must divide the 12 .*; try {nearest}$"):
    check_batch(config, devices=1)


def test_shares_are_of_the_whole_training():
  config = smoke(duration="10 epochs")
  config.optim.update(drops=("25%", "5 epochs"), warmup="10%")
  plan = make_plan(config, examples=80)
  assert (plan.total_steps, plan.warmup_steps, plan.drops) == (100, 10, (25, 50))


def test_a_training_without_a_step_is_refused():
  with pytest.raises(UserError, match=r"train\.duration"):
    make_plan(smoke(duration="0 steps"), examples=80)


def trained(config, rate):
  """The kernel of a regression after the whole training at a rate."""
  plan = make_plan(config, examples=50)
  schedule = optim.learning_rate(
    base=rate,
    total_steps=plan.total_steps,
    warmup_steps=plan.warmup_steps,
    drops=plan.drops,
  )
  method, mesh, key = tiny.Regression(), sharding.make_mesh(), jax.random.key(0)
  optimizer = optim.make_optimizer(config.optim, schedule)
  current = state.create(method, optimizer, key, mesh)
  step = state.make_train_step(method, optimizer, key, mesh)
  for index in range(plan.total_steps):
    current, _ = step(current, sharding.shard_batch(mesh, tiny.batch(index)))
  return np.asarray(current.params["kernel"])


def test_the_learning_rate_counts_in_a_training_shorter_than_its_warmup(caplog):
  config = smoke(duration="11 steps")
  config.optim.warmup = "20 steps"
  low, high = trained(config, 0.002), trained(config, 0.05)
  assert jnp.abs(low - high).max() > 0.05  # at rate 0.05 Adam moves by half a unit
  [line] = {r.getMessage() for r in caplog.records if "optim.warmup" in r.getMessage()}
  assert "20 of 11 steps" in line and "shortened to 1" in line


@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (5, 5), (50, 50), (51, 10)])
def test_a_warmup_of_half_the_training_or_less_stays(warmup, steps):
  config = smoke(duration="100 steps")
  config.optim.warmup = f"{warmup} steps"
  assert make_plan(config, examples=80).warmup_steps == steps


def test_a_long_warmup_before_late_drops_stays():
  config = smoke(duration="100 steps")
  config.optim.warmup, config.optim.drops = "60 steps", ("90 steps",)
  assert make_plan(config, examples=80).warmup_steps == 60


@pytest.mark.parametrize(
  ("section", "changes", "line"),
  [
    ("optim", dict(drops=("30%", "100 steps")), "optim.drops=.* without effect"),
    ("eval", dict(every="101 steps"), "eval.every=101 steps .* at the end alone"),
    ("eval", dict(test_every="9 epochs"), "eval.test_every=9 epochs"),
    ("train", dict(checkpoint_every="101 steps"), "train.checkpoint_every=101"),
    ("train", dict(log_every=101), "train.log_every=101"),
    ("method", dict(curriculum_steps=101), "method.curriculum_steps=101 .* never"),
  ],
)
def test_times_beyond_the_end_are_told(caplog, section, changes, line):
  config = smoke(duration="100 steps")
  config.method.curriculum_steps = 100
  make_plan(config, examples=100)
  assert not caplog.records
  config[section].update(changes)
  make_plan(config, examples=100)
  [record] = caplog.records
  assert re.search(line, record.getMessage())


def test_the_curriculum_of_a_joint_training_is_told_too(caplog):
  config = load(CONFIGS / "joint.py").get_config("smoke")
  config.mosi.curriculum_steps = 5
  make_plan(config, examples=80)
  assert "mosi.curriculum_steps=5" in caplog.text


@pytest.mark.parametrize(
  ("train", "devices", "message"),
  [
    (dict(batch_size=6), 4, "4 and 8"),
    (dict(batch_size=8, accumulate_steps=4), 4, "16"),
    (dict(log_every=0), 1, "log_every"),
  ],
)
def test_batches_that_do_not_fit_are_refused(train, devices, message):
  with pytest.raises(UserError, match=message):
    check_batch(smoke(**train), devices)
