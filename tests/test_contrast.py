"""InfoNCE and its queue: golden numbers, and the same on 1, 2, 4 and 8 devices."""

import functools
import json
import math
import pathlib
import re
import subprocess
import sys

import children
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from motion_jax.ops import contrast
from motion_jax.scale import sharding

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "infonce.npz")
unit = contrast.normalize_embedding


def queue_of(keys, ids, batch=2):
  """A queue of the rows of `keys`, in slots of `batch`."""
  shape = (len(keys) // batch, batch)
  return contrast.Queue(
    jnp.asarray(keys, jnp.float32).reshape(*shape, -1),
    jnp.asarray(ids, jnp.int32).reshape(shape),
    jnp.zeros((), jnp.int32),
  )


def term(query, key, queue, ids, temperature=0.1):
  negatives = contrast.score_negatives(query, queue, ids, temperature=temperature)
  valid = jnp.ones(len(query), bool)
  return contrast.info_nce(query, key, negatives, valid, temperature=temperature)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", range(4))
def test_losses_and_gradients_are_the_golden_ones(case, masked):
  g = {name: GOLDEN[f"nce{case}/{name}"] for name in ("q_raw", "k_raw", "queue", "tau")}
  queue_ids, ids = GOLDEN[f"nce{case}/queue_ids"], GOLDEN[f"nce{case}/video_ids"]
  queue = queue_of(g["queue"], queue_ids if masked else 0 * queue_ids - 1)
  temperature = float(g["tau"])

  @jax.jit
  def losses(query):
    return term(query, unit(g["k_raw"]), queue, jnp.asarray(ids), temperature).loss

  def raw_loss(raw):
    return losses(unit(raw)).mean()

  query = unit(g["q_raw"])
  found = {
    "loss_per_sample": losses(query),
    "loss": losses(query).mean(),
    "grad_q_normalised": jax.grad(lambda q: losses(q).mean())(query),
    "grad_q_raw": jax.grad(raw_loss)(jnp.asarray(g["q_raw"])),
  }
  prefix = f"nce{case}/{'masked' if masked else 'plain'}"
  for name, value in found.items():
    expected = GOLDEN[f"{prefix}/{name}"]
    np.testing.assert_allclose(value, expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("masked", [False, True])
def test_terms_within_and_across_modalities_are_the_golden_ones(masked):
  g = {name.split("/")[1]: GOLDEN[name] for name in GOLDEN.files if "total0" in name}
  v_q, v_k, m_q, m_k = (unit(g[name]) for name in ("v_q", "v_k", "m_q", "m_k"))
  ids = jnp.asarray(g["video_ids"])
  off = 0 if masked else 1
  visual = queue_of(g["queue_v"], np.where(off, -1, g["ids_v"]))
  motion = queue_of(g["queue_m"], np.where(off, -1, g["ids_m"]))
  temperature = float(g["tau"])

  def loss(query, key, queue):
    return term(query, key, queue, ids, temperature).loss.mean()

  found = {
    "L_v": loss(v_q, v_k, visual),
    "L_m": loss(m_q, m_k, motion),
    "L_mv_query_negatives": loss(v_q, m_k, visual) + loss(m_q, v_k, motion),
    "L_mv_key_negatives": loss(v_q, m_k, motion) + loss(m_q, v_k, visual),
  }
  for name, value in found.items():
    expected = GOLDEN[f"total0/{'masked' if masked else 'plain'}/{name}"]
    assert abs(value - expected) < 1e-5, name


@pytest.mark.parametrize("case", [0, 2])  # those whose batches divide the queue
def test_the_queue_is_the_golden_ring(case):
  g = {
    name.split("/")[1]: GOLDEN[name] for name in GOLDEN.files if f"ring{case}" in name
  }
  batch = int(g["batch_sizes"][0])
  queue = queue_of(g["initial"], np.full(len(g["initial"]), -1), batch)
  enqueue = jax.jit(contrast.enqueue)
  for step, _ in enumerate(g["batch_sizes"]):
    rows = slice(step * batch, (step + 1) * batch)
    keys, ids = g["inserted_keys"][rows], g["inserted_ids"][rows]
    queue = enqueue(queue, jnp.asarray(keys), jnp.asarray(ids), jnp.ones(batch, bool))
    flat = queue.keys.reshape(g["initial"].shape)
    np.testing.assert_array_equal(flat, g["queue_after"][step])
    np.testing.assert_array_equal(queue.ids.ravel(), g["ids_after"][step])
    assert int(queue.cursor) * batch == g["pointer_after"][step]


def test_diagnostics_follow_their_definitions():
  rng = np.random.default_rng(0)
  query, key = (unit(rng.standard_normal((40, 4))) for _ in range(2))
  keys = np.asarray(unit(rng.standard_normal((12, 4))))
  queue_ids, ids = rng.integers(-1, 5, 12), jnp.asarray(rng.integers(-1, 5, 40))
  negatives = contrast.score_negatives(query, queue_of(keys, queue_ids), ids)
  result = contrast.info_nce(query, key, negatives, jnp.ones(40, bool))
  for row in range(40):
    kept = (queue_ids != ids[row]) | (queue_ids == -1)
    similarity = keys[kept] @ np.asarray(query[row])
    positive = float(query[row] @ key[row])
    assert negatives.mean[row] == pytest.approx(similarity.mean(), abs=1e-6)
    assert negatives.highest[row] == pytest.approx(similarity.max(), abs=1e-6)
    assert result.positive[row] == pytest.approx(positive, abs=1e-6)
    assert result.accuracy[row] == (positive > similarity.max())
  assert 0 < result.accuracy.mean() < 1


def test_the_nearest_key_of_a_batch_is_sought_among_valid_ones():
  rng = np.random.default_rng(1)
  query = unit(rng.standard_normal((40, 4)))
  key = unit(query + 0.8 * rng.standard_normal((40, 4)))
  valid = jnp.asarray(rng.random(40) < 0.5)
  found = contrast.is_nearest_key(query, key, valid)
  candidates = np.flatnonzero(valid)
  similarity = np.asarray(query) @ np.asarray(key)[candidates].T
  expected = candidates[similarity.argmax(1)] == np.arange(40)
  np.testing.assert_array_equal(found, expected)
  assert 0 < expected.sum() < valid.sum()


def test_a_query_without_negatives_has_no_loss_and_no_gradient():
  query, key = (unit(jax.random.normal(jax.random.key(i), (2, 8))) for i in (0, 1))
  queue = queue_of(unit(jax.random.normal(jax.random.key(2), (4, 8))), [3] * 4)
  ids = jnp.array([3, 4])

  def loss(query):
    return term(query, key, queue, ids).loss

  gradient = jax.grad(lambda q: loss(q).sum())(query)
  np.testing.assert_array_equal([loss(query)[0], *gradient[0]], 0)
  assert loss(query)[1] > 0 and jnp.abs(gradient[1]).max() > 0


def test_keys_and_queue_are_constants():
  query, key = (unit(jax.random.normal(jax.random.key(i), (4, 8))) for i in (0, 1))
  queue = contrast.make_queue(jax.random.key(2), size=8, batch_size=4, dim=8)

  def loss(key, keys):
    moved = queue._replace(keys=keys)
    after = contrast.enqueue(moved, key, jnp.arange(4), jnp.ones(4, bool))
    return term(query, key, moved, jnp.arange(4)).loss.sum() + after.keys[0].sum()

  for gradient in jax.grad(loss, argnums=(0, 1))(key, queue.keys):
    np.testing.assert_array_equal(gradient, 0)


def test_a_new_queue_is_random_and_its_loss_that_of_chance():
  queue = contrast.make_queue(jax.random.key(0), size=4096, batch_size=64, dim=128)
  assert queue.keys.shape == (64, 64, 128) and (queue.ids == contrast.EMPTY).all()
  np.testing.assert_allclose(jnp.linalg.norm(queue.keys, axis=-1), 1, atol=1e-5)
  query = unit(jax.random.normal(jax.random.key(1), (64, 128), jnp.bfloat16))
  key = unit(jax.random.normal(jax.random.key(2), (64, 128)))
  result = term(query, key, queue, jnp.arange(64), temperature=1.0)
  assert result.loss.dtype == jnp.float32
  assert abs(result.loss.mean() - math.log(4097)) < 0.05


def step(query, key, ids, queue):
  """One training step as far as the queue is concerned."""

  def loss(query):
    return term(unit(query), unit(key), queue, ids).loss.mean()

  value, gradient = jax.value_and_grad(loss)(query)
  valid = jnp.ones(len(ids), bool)
  return value, gradient, contrast.enqueue(queue, unit(key), ids, valid)


def compiled_step(devices, size, batch, dim):
  """The step on a mesh of some devices, and where its arguments lie."""
  mesh = Mesh(jax.devices()[:devices], ("data",), axis_types=(AxisType.Auto,))
  queue = contrast.queue_shardings(mesh, batch)
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  places = (rows, rows, rows, queue)
  vectors = jax.ShapeDtypeStruct((batch, dim), jnp.float32)
  ids = jax.ShapeDtypeStruct((batch,), jnp.int32)
  options = {"size": size, "batch_size": batch, "dim": dim}
  make = functools.partial(contrast.make_queue, **options)
  queue = jax.eval_shape(make, jax.random.key(0))
  function = sharding.on(mesh, step)
  function = jax.jit(function, in_shardings=places, donate_argnums=3)
  return function.lower(vectors, vectors, ids, queue).compile(), places


def run_steps(devices, steps=6, size=64, batch=16, dim=32):
  """Losses, gradients and queues of some steps; the ring wraps around."""
  compiled, places = compiled_step(devices, size, batch, dim)
  queue = contrast.make_queue(jax.random.key(0), size=size, batch_size=batch, dim=dim)
  results = []
  for index in range(steps):
    query, key = jax.random.normal(jax.random.key(index), (2, batch, dim))
    ids = (jnp.arange(batch, dtype=jnp.int32) * 7 + 5 * index) % 40
    arguments = jax.device_put((query, key, ids, queue), places)
    loss, gradient, queue = compiled(*arguments)
    assert queue.keys.sharding.is_equivalent_to(places[3].keys, 3)
    results += [float(loss), *np.asarray(gradient).ravel().tolist()]
  return results + np.asarray(queue.keys).ravel().tolist()


def collectives(text):
  """(operation, elements of its largest array) of every collective of a program."""
  found = []
  kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
  for line in text.splitlines():
    match = re.search(rf" = (.*?) ({kinds})(-start)?\(", line)
    if match:
      shapes = re.findall(r"\[([\d,]*)\]", match[1])
      sizes = [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]
      found.append((match[2], max(sizes)))
  return found


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
import test_contrast
compiled, _ = test_contrast.compiled_step(8, 65536, 64, 128)
found = test_contrast.collectives(compiled.as_text())
print(json.dumps([found, *(test_contrast.run_steps(n) for n in (1, 2, 4, 8))]))
"""


@pytest.mark.slow
def test_devices_agree_and_no_key_of_the_queue_travels():
  script = SCRIPT.format(tests=str(pathlib.Path(__file__).parent))
  output = subprocess.run(
    [sys.executable, "-c", script],
    env=children.environment(8),
    capture_output=True,
    check=True,
  ).stdout
  found, one, *more = json.loads(output)
  # Queries to every device, and per query a number or a gradient back: 64 x 128.
  assert {kind for kind, _ in found} == {"all-gather", "all-reduce"}
  assert max(size for _, size in found) == 64 * 128
  assert len(one) > 6 * 16 * 32
  for other in more:
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rows", "limit"), [(8, 1e-6), (1, 2e-5)])
def test_gradients_against_many_keys_are_those_of_float64(rows, limit):
  """The product of a single row is added up one by one on CPUs: 5e-6 of 100,000."""
  rng = np.random.default_rng(0)
  keys, query = (rng.standard_normal((n, 16)) for n in (65_536, rows))
  keys, query = (
    (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    for x in (keys, query)
  )
  ids = jnp.full((len(keys) // 8, 8), contrast.EMPTY)
  queue = contrast.Queue(jnp.asarray(keys).reshape(-1, 8, 16), ids, jnp.int32(0))

  @jax.jit
  def gradient(query, queue):
    def total(query):
      return contrast.score_negatives(query, queue, jnp.arange(rows)).log_sum.sum()

    return jax.grad(total)(query)

  keys, wide = keys.astype(np.float64), query.astype(np.float64)
  weight = np.exp(wide @ keys.T / 0.1)
  expected = weight / weight.sum(1, keepdims=True) @ keys / 0.1
  error = np.linalg.norm(gradient(query, queue) - expected)
  assert error < limit * np.linalg.norm(expected)
