"""The training state, and the one train step and one eval step of every method."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jax.sharding import Mesh

from motion_jax.scale import sharding


@flax.struct.dataclass
class TrainState:
  """All that changes during training; a pytree of arrays.

  `metrics` accumulates since the last log line; being part of the state it survives
  an interruption between two log lines.
  """

  step: jax.Array
  params: Any
  aux: Any
  opt_state: Any
  metrics: metrics.Collection


def create(method, optimizer: optax.GradientTransformation, key, mesh: Mesh):
  """Initialises a TrainState, placed on the mesh by `state_shardings`."""

  def init(key):
    params, aux = method.init(key)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      aux=aux,
      opt_state=optimizer.init(params),
      metrics=method.metrics.empty(),
    )

  return jax.jit(init, out_shardings=state_shardings(method, mesh))(key)


def initial_weights(method, key, mesh: Mesh):
  """Initialises (params, aux) alone, placed as in a TrainState."""
  places = state_shardings(method, mesh)
  return jax.jit(method.init, out_shardings=(places.params, places.aux))(key)


def state_shardings(method, mesh: Mesh) -> TrainState:
  """Where a TrainState lies: replicated but for what the method splits of its aux."""
  everywhere = sharding.replicated(mesh)
  return TrainState(
    step=everywhere,
    params=everywhere,
    aux=method.aux_shardings(mesh),
    opt_state=everywhere,
    metrics=everywhere,
  )


def make_train_step(method, optimizer, key, mesh: Mesh, *, accumulate_steps: int = 1):
  """Builds the jitted step.

  Args:
    method: see `methods.base.Method`.
    optimizer: from `optim.make_optimizer`.
    key: PRNG key of the run; step t uses `fold_in(key, t)`, so resuming needs no
      stored generator.
    mesh: from `sharding.make_mesh`.
    accumulate_steps: the batch is processed in this many parts, one after the other,
      and their gradients are averaged: less memory, same steps where all rows count
      (a part with a damaged row, or with fewer people, counts as much as others).
      BatchNorm then sees one part at a time, and moves its averages after each.

  Returns:
    A function (state, batch) -> (state, loss); it donates `state`.
  """

  def gradients(params, aux, batch, key, step):
    grad = jax.value_and_grad(method.loss, has_aux=True)
    (loss, (aux, outputs)), grads = grad(params, aux, batch, key, step)
    return grads, loss, aux, method.measured(outputs)

  def accumulated(params, aux, batch, key, step):
    def split(array):  # part p takes rows p, p + A, ...: no row changes its device
      parts = array.reshape(-1, accumulate_steps, *array.shape[1:])
      return jnp.swapaxes(parts, 0, 1)

    def body(carry, inputs):
      grads, loss, aux, collected = carry
      part, index = inputs
      part_grads, part_loss, aux, new = gradients(
        params, aux, part, jax.random.fold_in(key, index), step
      )
      grads = jax.tree.map(jnp.add, grads, part_grads)
      return (grads, loss + part_loss, aux, collected.merge(new)), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    start = (zeros, jnp.zeros(()), aux, method.metrics.empty())
    inputs = (jax.tree.map(split, batch), jnp.arange(accumulate_steps))
    (grads, loss, aux, collected), _ = jax.lax.scan(body, start, inputs)
    mean = jax.tree.map(lambda array: array / accumulate_steps, grads)
    return mean, loss / accumulate_steps, aux, collected

  def train_step(state: TrainState, batch):
    compute = gradients if accumulate_steps == 1 else accumulated
    grads, loss, aux, collected = compute(
      state.params, state.aux, batch, jax.random.fold_in(key, state.step), state.step
    )
    with jax.named_scope("update"):
      updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
      params = optax.apply_updates(state.params, updates)
      aux = method.after_update(params, aux, state.step)
    new = TrainState(
      step=state.step + 1,
      params=params,
      aux=aux,
      opt_state=opt_state,
      metrics=state.metrics.merge(collected),
    )
    return new, loss

  places = state_shardings(method, mesh)
  return jax.jit(
    sharding.on(mesh, train_step),
    in_shardings=(places, sharding.split_rows(mesh)),
    out_shardings=(places, sharding.replicated(mesh)),
    donate_argnums=0,
  )


def make_empty_metrics(method, mesh: Mesh):
  """Builds the jitted function () -> metrics of a TrainState that has none yet."""
  return jax.jit(method.metrics.empty, out_shardings=sharding.replicated(mesh))


def first_inputs(batch, key, *, accumulate_steps: int = 1):
  """What the first call of `method.loss` in the first train step gets.

  Args:
    batch: of the first step, [B, ...] each.
    key: of the run, as for `make_train_step`.
    accumulate_steps: as there.

  Returns:
    (batch, key), the arguments of the loss.
  """
  key = jax.random.fold_in(key, 0)
  if accumulate_steps == 1:
    return batch, key
  part = {name: array[::accumulate_steps] for name, array in batch.items()}
  return part, jax.random.fold_in(key, 0)


def make_predict(method, mesh: Mesh):
  """Builds the jitted function (params, aux, batch) -> outputs of `method.predict`."""
  everywhere = sharding.replicated(mesh)
  aux = method.aux_shardings(mesh)
  return jax.jit(
    sharding.on(mesh, method.predict),
    in_shardings=(everywhere, aux, sharding.split_rows(mesh)),
    out_shardings=everywhere,
  )
