"""Linear probe on cached features: multinomial logistic regression.

The objective is convex and solved with all examples at once by L-BFGS, so the result
depends on no learning rate, batch size or number of epochs, and repeats exactly.
"""

import dataclasses
import functools
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from motion_jax.config import UserError
from motion_jax.evaluation.measures.scores import check_features, top_accuracy

logger = logging.getLogger("motion_jax")

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
_HELD_OUT = 0.2  # share of every class that a strength is chosen by
_MAX_STEPS, _TOLERANCE = 500, 1e-5  # of L-BFGS; of the norm of the gradient


@dataclasses.dataclass(frozen=True)
class Probe:
  """A fitted linear classifier.

  Attributes:
    kernel: float32 [D, classes], for standardised features.
    bias: float32 [classes].
    mean, std: float32 [D], of the training features; std is 1 where nothing varies.
    gradient_norm: of the objective at the end; below the tolerance if it converged.
  """

  kernel: np.ndarray
  bias: np.ndarray
  mean: np.ndarray
  std: np.ndarray
  gradient_norm: float

  def __call__(self, features: np.ndarray) -> np.ndarray:
    """Maps features [N, D] to logits [N, classes]."""
    return (features - self.mean) / self.std @ self.kernel + self.bias


def linear_accuracy(
  train_features: np.ndarray,
  train_labels: np.ndarray,
  test_features: np.ndarray,
  test_labels: np.ndarray,
  *,
  l2: Sequence[float] = STRENGTHS,
  seed: int = 0,
) -> dict[str, float]:
  """Accuracy of a linear probe, fitted on training and scored on test features.

  Args:
    train_features, test_features: float [N, D], [M, D].
    train_labels, test_labels: int [N], [M], >= 0.
    l2: strengths of the penalty, see `fit`; of several, the best on a held-out part of
      the training features is used to fit all of them.
    seed: of the held-out part.

  Returns:
    {'top1': ..., 'top5': ..., 'l2': the strength used}.

  Raises:
    UserError: for missing labels, features that are not finite, fewer than two
      classes, test classes without training examples, or no class with two examples
      where a part must be held out.
  """
  train, test = (train_features, train_labels), (test_features, test_labels)
  check_features("training", *train)
  check_features("test", *test)
  unknown = sorted({*test_labels.tolist()} - {*train_labels.tolist()})
  if unknown:
    raise UserError(
      f"{len(unknown)} test classes have no training example: {unknown[:5]}; give both"
      " splits the same class folders"
    )
  best = choose_l2(*train, strengths=l2, seed=seed) if len(l2) > 1 else l2[0]
  probe = fit(*train, l2=best)
  if probe.gradient_norm > 1e-3:
    logger.warning(
      "the linear probe has not converged (gradient %.2g): its accuracy is a lower "
      "bound",
      probe.gradient_norm,
    )
  return {**top_accuracy(probe(test_features), test_labels), "l2": float(best)}


def fit(
  features: np.ndarray,
  labels: np.ndarray,
  *,
  l2: float,
  used: np.ndarray | None = None,
) -> Probe:
  """Fits mean cross-entropy + l2 / 2 * |kernel|^2 on standardised features.

  Args:
    features: float [N, D].
    labels: int [N], >= 0; the probe has max(labels) + 1 classes.
    l2: strength of the penalty, positive; scikit-learn's C is 1 / (N * l2).
    used: bool [N], the examples to fit; all if None. Other numbers of used examples do
      not compile again.

  Raises:
    UserError: if there are fewer than two classes.
  """
  if len(np.unique(labels)) < 2:
    raise UserError(
      f"all {len(labels)} training labels are {labels[0]}; a classifier needs at least"
      " two classes"
    )
  used = np.ones(len(labels), bool) if used is None else used
  mean = features[used].mean(0, dtype=np.float64)
  std = features[used].std(0, dtype=np.float64)
  # Rounding leaves about 1e-7 of the mean in a feature that is constant.
  std = np.where(std > 1e-6 * np.abs(mean), std, 1)
  inputs = ((features - mean) / std).astype(np.float32)
  weight, classes = used.astype(np.float32), int(labels.max()) + 1
  (kernel, bias), norm = jax.device_get(_solve(inputs, labels, weight, l2, classes))
  mean, std = mean.astype(np.float32), std.astype(np.float32)
  return Probe(kernel, bias, mean, std, float(norm))


def choose_l2(
  features: np.ndarray,
  labels: np.ndarray,
  *,
  strengths: Sequence[float],
  seed: int = 0,
) -> float:
  """Chooses the penalty by top-1 on a fifth of every class, which is held out.

  Examples are drawn one by one: near duplicates (clips of one scene) may lie in both
  parts, which favours weak penalties.

  Args:
    features: float [N, D].
    labels: int [N], >= 0.
    strengths: candidates; of equally accurate ones the lowest cross-entropy wins.
    seed: of the draw.

  Raises:
    UserError: if no class has two examples.
  """
  used = _split(labels, np.random.default_rng(seed))
  if used.all():
    raise UserError(
      "no class has two training examples, so none can be held out to choose the"
      " penalty of the linear classifier"
    )
  ranks = []
  for l2 in strengths:
    scores = fit(features, labels, l2=l2, used=used)(features[~used])
    truth = labels[~used]
    accuracy = top_accuracy(scores, truth, ks=(1,))["top1"]
    loss = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(truth)), truth]
    ranks.append((accuracy, -loss.mean(), l2))
  return max(ranks)[-1]


def _split(labels, rng):
  """bool [N], False for held-out examples: one of each class at least, but not all."""
  used = np.ones(len(labels), bool)
  for label in np.unique(labels):
    members = rng.permutation(np.flatnonzero(labels == label))
    count = min(len(members) - 1, max(1, round(_HELD_OUT * len(members))))
    used[members[:count]] = False
  return used


@functools.partial(jax.jit, static_argnums=4)
@jax.default_matmul_precision("highest")
def _solve(features, labels, weight, l2, classes):
  """Returns ((kernel, bias), norm of the gradient)."""

  def objective(params):
    kernel, bias = params
    log_probability = jax.nn.log_softmax(features @ kernel + bias)
    picked = jnp.take_along_axis(log_probability, labels[:, None], axis=1)[:, 0]
    loss = -(weight * picked).sum() / weight.sum()
    return loss + l2 / 2 * jnp.square(kernel).sum()

  optimizer = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(objective)

  def step(carry):
    params, state, index, _ = carry
    value, grad = value_and_grad(params, state=state)
    updates, state = optimizer.update(
      grad, state, params, value=value, grad=grad, value_fn=objective
    )
    params = optax.apply_updates(params, updates)
    norm = optax.tree.norm(optax.tree.get(state, "grad"))
    return params, state, index + 1, norm

  def unfinished(carry):
    return (carry[2] < _MAX_STEPS) & (carry[3] > _TOLERANCE)

  params = jnp.zeros((features.shape[1], classes)), jnp.zeros(classes)
  start = params, optimizer.init(params), 0, jnp.inf
  params, _, _, norm = jax.lax.while_loop(unfinished, step, start)
  return params, norm
