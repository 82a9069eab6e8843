"""When evaluations, tests and checkpoints happen."""

import pytest
from test_config import CONFIGS, load

from motion_jax.config import UserError
from motion_jax.plan import check_batch, make_plan


def smoke(**train):
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.train.update(train)
  return config


def test_every_test_is_an_evaluation_and_every_evaluation_a_checkpoint():
  config = smoke(duration="30 steps", checkpoint_every="7 steps")
  config.eval.update(every="5 steps", test_every="12 steps")
  plan = make_plan(config, examples=80)
  steps = range(1, 31)
  assert [s for s in steps if plan.is_test(s)] == [12, 24, 30]
  assert [s for s in steps if plan.is_evaluation(s)] == [5, 10, 12, 15, 20, 24, 25, 30]
  assert {7, 14, 21, 28} <= {s for s in steps if plan.is_checkpoint(s)}


def test_shares_are_of_the_whole_training():
  config = smoke(duration="10 epochs")
  config.optim.update(drops=("25%", "5 epochs"), warmup="10%")
  plan = make_plan(config, examples=80)
  assert (plan.total_steps, plan.warmup_steps, plan.drops) == (100, 10, (25, 50))


def test_a_training_without_a_step_is_refused():
  with pytest.raises(UserError, match=r"train\.duration"):
    make_plan(smoke(duration="0 steps"), examples=80)


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
