"""What a training tells of itself: verdicts at the end, warnings on the way."""

import pytest

from motion_jax.training.health import Health
from motion_jax.training.verdict import verdict


def lines(**values):
  values = {f"eval/{name.replace('__', '/')}": x for name, x in values.items()}
  names = ("loss", "pretext_accuracy", "colour_accuracy")
  return verdict(values, names, videos=200, classes=10)


@pytest.mark.parametrize(
  ("value", "words"),
  [(0.4, "better than untrained"), (0.25, "the same"), (0.1, "WORSE than untrained")],
)
def test_a_share_is_compared_with_the_untrained_network(value, words):
  line, note = lines(knn_top1=value, random_init__knn_top1=0.2)
  assert line.startswith(f"  knn_top1                {value:.3f}  (untrained 0.200, ")
  assert "chance 0.100" in line and words in line
  assert "200 videos" in note and "0.10" in note  # 2 sqrt(2 / 4 / 200)


def test_only_the_numbers_that_tell_most_are_shown_in_a_fixed_order():
  found = lines(
    retrieval_r1=0.3,
    retrieval_r5=0.5,
    loss=1.0,
    pretext_accuracy=0.9,
    visual_batch_accuracy=0.4,
  )
  assert [line.split()[0] for line in found] == [
    *("loss", "pretext_accuracy", "retrieval_r1")
  ]


def test_beside_an_accuracy_of_labels_is_the_best_constant_guess():
  (line,) = lines(colour_accuracy=0.5, colour_constant=0.4)
  assert line.endswith("0.500  (best constant guess 0.400)")


def test_the_knn_of_few_videos_is_told_where_there_is_none_of_all():
  values = {"eval/online_knn_top1": 0.3, "eval/random_init/online_knn_top1": 0.1}
  options = dict(videos=9000, classes=400, few=(64, 8))
  line, note = verdict(values, (), **options)
  assert line.endswith("(untrained 0.100, chance 0.125): better than untrained")
  assert "of 64 videos" in note
  values["eval/knn_top1"] = 0.2
  assert [x.split()[0] for x in verdict(values, (), **options)] == ["knn_top1"]


def test_an_encoder_no_better_than_untrained_is_told_once_in_the_second_half(caplog):
  health, untrained = Health(100, {}), {"eval/random_init/online_knn_top1": 0.2}
  same, better = ({"eval/online_knn_top1": x, **untrained} for x in (0.2, 0.21))
  health.check_encoder(49, same)
  health.check_encoder(60, better)
  health.check_encoder(60, {"eval/loss": 2.0})
  assert not caplog.text
  for step in (60, 80):
    health.check_encoder(step, same)
  assert len(caplog.messages) == 1
  assert "online_knn_top1 is 0.200 after 60% of the training" in caplog.text


@pytest.mark.parametrize(("value", "words"), [(0.19, ": at chance; see "), (0.21, "")])
def test_a_pretext_stands_beside_chance(value, words):
  options = dict(videos=200, classes=0, chance={"pretext_accuracy": 1 / 9})
  (line,) = verdict({"eval/pretext_accuracy": value}, ("pretext_accuracy",), **options)
  assert f"{value:.3f}  (chance 0.111){words}" in line
  assert ("at chance" in line) == bool(words)


def test_a_pretext_at_chance_is_told_once_and_not_too_early(caplog):
  health = Health(100, {"pretext_accuracy": 0.125})
  health.check(49, {"pretext_accuracy": 0.12})
  assert not caplog.text
  for step in (50, 60):
    health.check(step, {"pretext_accuracy": 0.13})
  assert len(caplog.messages) == 1
  assert "0.130 after 50% of the training" in caplog.text
  health = Health(100, {"pretext_accuracy": 0.125})
  health.check(90, {"pretext_accuracy": 0.3})
  Health(3, {"pretext_accuracy": 0.125}).check(3, {"pretext_accuracy": 0.1})  # a trial
  assert len(caplog.messages) == 1


def test_a_collapse_is_told_once(caplog):
  health = Health(100, {})
  health.check(5, {"visual_feature_spread": 0.01, "visual_spread": 0.0})
  assert not caplog.text
  for step in (10, 20):
    health.check(step, {"visual_feature_spread": 0.01, "motion_feature_spread": 0.5})
  assert len(caplog.messages) == 1
  assert "visual_feature_spread is 0.010" in caplog.text
