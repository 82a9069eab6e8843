"""Scores of predicted labels, beside chance and what guessing gets."""

import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import optax
from clu import metrics

from motion_jax.ops.statistics import BRANCHES, Label

KINDS = ("location", "orientation", "colour")  # whose accuracy is measured


class LabelScores:
  """Losses and accuracies of labels that are regressed or classified.

  Differs from the official code: a regressed output is relative to the middle of its
  label's values: the first squared errors of motion are about 9 instead of 41.

  Args:
    labels: the labels to learn; their values count from 1.
    objective: 'regression' (squared error, one output per label) or 'classification'
      (cross entropy, one output per value).
    weights: factor of the loss of each branch.
  """

  def __init__(
    self, labels: Sequence[Label], objective: str, weights: dict[str, float]
  ):
    self.labels, self.weights = tuple(labels), weights
    self.branches = [name for name in BRANCHES if self._of(branch=name)]
    self._regression = objective == "regression"

  def output_sizes(self) -> list[int]:
    """Number of network outputs of each branch."""
    return [
      sum(1 if self._regression else self.labels[i].classes for i in self._of(branch=b))
      for b in self.branches
    ]

  def accuracies(self) -> list[str]:
    """Names of the accuracies among `metrics`."""
    return [f"{kind}_accuracy" for kind in KINDS if self._of(kind=kind)]

  def metrics(self) -> type[metrics.Collection]:
    """Means over clips; `_constant` is the best constant guess on the same clips."""
    error = "squared_error" if self._regression else "cross_entropy"
    values = max(label.classes for label in self.labels)
    fields = {"loss": metrics.Average.from_output("loss")}
    for branch in self.branches:
      for name in (f"{branch}_loss", f"{branch}_chance"):
        fields[name] = metrics.Average.from_output(name)
      columns = self._of(branch=branch)
      fields[f"{branch}_constant"] = constant_metric(columns, values, error)
    for kind in KINDS:
      if columns := self._of(kind=kind):
        name = f"{kind}_accuracy"
        fields[name] = metrics.Average.from_output(name)
        fields[f"{kind}_constant"] = constant_metric(columns, values, "accuracy")
    fields["still_share"] = metrics.Average.from_output("still")
    return metrics.Collection.create(**fields)

  def __call__(self, outputs: list[jax.Array], labels: jax.Array) -> dict:
    """Scores a batch.

    Args:
      outputs: [B, outputs] of each branch.
      labels: [B, K] int32 from 1, in the order of `labels`.

    Returns:
      What `metrics` needs but `mask` and `still`: loss, <branch>_loss,
      <branch>_chance, <kind>_accuracy, all [B], and labels [B, K]. Beside it guesses
      [B, K], the predicted values.
    """
    score = _regressed if self._regression else _classified
    found = {"loss": 0.0, "labels": labels}
    guessed = {}
    for branch, output in zip(self.branches, outputs, strict=True):
      mine = self._of(branch=branch)
      classes = [self.labels[i].classes for i in mine]
      errors, guesses, chance = score(output, labels[:, jnp.array(mine)], classes)
      found[f"{branch}_loss"] = errors.mean(-1)
      found[f"{branch}_chance"] = jnp.full(len(labels), chance)
      found["loss"] += self.weights[branch] * errors.mean(-1)
      for position, index in enumerate(mine):
        guessed[index] = guesses[:, position]
    found["guesses"] = jnp.stack([guessed[i] for i in range(len(self.labels))], -1)
    hits = found["guesses"] == labels
    for kind in KINDS:
      if mine := self._of(kind=kind):
        found[f"{kind}_accuracy"] = hits[:, jnp.array(mine)].mean(-1)
    return found

  def _of(self, **wanted):
    """Positions of the labels with the given fields."""
    return [
      index
      for index, label in enumerate(self.labels)
      if all(getattr(label, name) == value for name, value in wanted.items())
    ]


def constant_metric(
  columns: Sequence[int], values: int, score: str
) -> type[metrics.Metric]:
  """A metric of the best constant guess, found on the very clips it is scored on.

  Args:
    columns: which labels count.
    values: the largest value of a label; labels count from 1.
    score: 'squared_error' (of the mean), 'cross_entropy' (of the frequencies) or
      'accuracy' (of the most frequent value).

  Returns:
    A metric over the outputs `labels` [B, K] int32 and `mask` [B]: the mean score over
    the labels in `columns`.
  """
  scores = dict(squared_error=_variance, cross_entropy=_entropy, accuracy=_mode)
  columns = tuple(columns)

  @flax.struct.dataclass
  class Constant(metrics.Metric):
    counts: jax.Array

    @classmethod
    def empty(cls):
      return cls(jnp.zeros((len(columns), values)))

    @classmethod
    def from_model_output(cls, labels, mask, **_):
      hits = jax.nn.one_hot(labels[:, jnp.array(columns)] - 1, values)
      hits *= mask[:, None, None]
      return cls(hits.sum(0))

    def merge(self, other):
      return type(self)(self.counts + other.counts)

    def reduce(self):
      return type(self)(self.counts.sum(0))

    def compute(self):
      total = jnp.maximum(self.counts.sum(-1, keepdims=True), 1)
      return scores[score](self.counts / total).mean()

  return Constant


def _regressed(output, labels, classes):
  """(errors [B, K], guesses [B, K], chance) of outputs [B, K].

  Chance is the error of the mean if all values were equally frequent: 8.88 for the 14
  labels of motion, 7.10 for the 13 of appearance.
  """
  values = jnp.array(classes)
  output += (1 + values) / 2
  guesses = jnp.clip(jnp.round(output), 1, values)
  chance = sum((count**2 - 1) / 12 for count in classes) / len(classes)
  return jnp.square(output - labels), guesses.astype(jnp.int32), chance


def _classified(output, labels, classes):
  """The same for logits [B, sum of classes] and cross entropies."""
  errors, guesses, start = [], [], 0
  for index, count in enumerate(classes):
    logits = output[:, start : start + count]
    start += count
    errors.append(
      optax.softmax_cross_entropy_with_integer_labels(logits, labels[:, index] - 1)
    )
    guesses.append(logits.argmax(-1) + 1)
  chance = sum(map(math.log, classes)) / len(classes)
  return jnp.stack(errors, -1), jnp.stack(guesses, -1), chance


def _variance(frequencies):
  values = jnp.arange(1, frequencies.shape[-1] + 1)
  mean = (frequencies * values).sum(-1)
  return (frequencies * values**2).sum(-1) - mean**2


def _entropy(frequencies):
  return jax.scipy.special.entr(frequencies).sum(-1)


def _mode(frequencies):
  return frequencies.max(-1)
