"""MoDist: terms, momentum, queues, diagnostics, refused settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_modist
import tiny
from small_modist import batch, run, smoke, started, trainer

from motion_jax.config import UserError
from motion_jax.methods import make_method
from motion_jax.methods.modist import Modist
from motion_jax.ops import contrast

RGB = dict(loss_motion=0.0, loss_cross=0.0)
PAPER = dict(queue_size=16, loss_motion=0.5, loss_cross=2.0, momentum=0.9)
RESUMED = dict(queue_size=24)


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
  small_modist.use_tiny_networks(monkeypatch.setattr)


def test_rgb_only_has_no_motion_network():
  config = smoke(**RGB)
  method = Modist(config)
  params, aux = jax.eval_shape(method.init, jax.random.key(0))
  assert set(params) == set(aux["queues"]) == {"visual"}
  assert method.clips_per_example == 2
  rows = {name: x[None] for name, x in method.sampler("train").empty().items()}
  clips = jax.eval_shape(method.pretext, rows, jax.random.key(0), 0)
  assert set(clips) == {"visual_query", "visual_key"}


@pytest.mark.parametrize("negatives", ["query", "key"])
def test_the_loss_is_the_weighted_sum_of_the_papers_terms(negatives):
  """Eq. 1 to 3, written out with plain softmax over positive and negatives."""
  config = smoke(cross_negatives=negatives, **PAPER)
  rng = np.random.default_rng(0)
  names = ("visual", "motion")
  draws = {n: rng.standard_normal((32, 16)).astype(np.float32) for n in names}
  units = {n: contrast.normalize_embedding(draw) for n, draw in draws.items()}
  queries, keys = ({n: u[i : i + 8] for n, u in units.items()} for i in (0, 8))
  queues = {
    n: contrast.Queue(
      u[16:].reshape(2, 8, 16), jnp.full((2, 8), -1), jnp.zeros((), int)
    )
    for n, u in units.items()
  }
  method, arguments = Modist(config), (queues, jnp.arange(8), batch(config))
  outputs = method.outputs(queries, keys, queries, *arguments)

  def nearest(query, key):
    return (queries[query] @ keys[key].T).argmax(1) == np.arange(8)

  def nce(query, positive, negative):
    query = np.asarray(queries[query])
    logits = (
      (query * keys[positive]).sum(-1, keepdims=True),
      query @ units[negative][16:].T,
    )
    logits = np.concatenate(logits, 1) / 0.1
    return np.log(np.exp(logits).sum(-1)) - logits[:, 0]

  visual, motion = names if negatives == "query" else names[::-1]
  expected = {
    "visual": nce("visual", "visual", "visual"),
    "motion": nce("motion", "motion", "motion"),
    "visual_to_motion": nce("visual", "motion", visual),
    "motion_to_visual": nce("motion", "visual", motion),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(outputs[f"{name}_loss"], value, rtol=1e-4)
    found = nearest(*name.split("_to_")) if "_to_" in name else nearest(name, name)
    np.testing.assert_array_equal(outputs[f"{name}_batch_accuracy"], found)
  total = np.dot([1.0, 0.5, 2.0, 2.0], [*expected.values()])
  np.testing.assert_allclose(outputs["loss"], total, rtol=1e-4)


@pytest.mark.slow
def test_queries_meet_the_keys_of_their_own_videos():
  config, method, params, aux, gradient = started(**PAPER)
  rows, key = batch(config), jax.random.key(5)
  (_, (after, outputs)), _ = gradient(params, aux, rows, key, 0)
  clip = jax.jit(method.pretext)(rows, key, 0)["visual_query"]
  pair = method.pairs["visual"]
  (query, _), _ = pair.embed_queries(params["visual"], aux["visual"], clip, train=True)
  for name in ("visual", "motion"):  # the keys that have entered the queue
    term = "visual" if name == "visual" else "visual_to_motion"
    similarity = (query * after["queues"][name].keys[0]).sum(-1)
    np.testing.assert_allclose(outputs[f"{term}_positive"], similarity, atol=1e-5)


@pytest.mark.slow
def test_keys_come_from_the_moved_copy_and_have_their_own_statistics():
  config, method, params, aux, gradient = started(**PAPER)
  for name, network in params.items():
    same = jax.tree.map(np.array_equal, network, aux[name]["key_params"])
    assert all(jax.tree.leaves(same))  # the first keys come from an exact copy
  (_, (passed, _)), _ = gradient(params, aux, batch(config), jax.random.key(0), 0)
  moved = jax.tree.map(lambda x: x + 1.0, params)
  after = method.after_update(moved, passed, 0)
  for name in params:
    kernels = (params[name], after[name]["key_params"])
    for old, new in zip(*map(jax.tree.leaves, kernels), strict=True):
      np.testing.assert_allclose(new, old + 0.1, atol=1e-5)
    query, key = (jax.tree.leaves(after[name][k]) for k in ("stats", "key_stats"))
    first = jax.tree.leaves(aux[name]["stats"])
    for q, k, start in zip(query, key, first, strict=True):
      assert not np.array_equal(q, k)
      assert not np.array_equal(k, start)


@pytest.mark.slow
def test_both_networks_learn():
  config, _, params, aux, gradient = started(**PAPER)
  _, grads = gradient(params, aux, batch(config), jax.random.key(0), 0)
  assert set(grads) == {"visual", "motion"}
  for leaf in jax.tree.leaves(grads):
    assert float(jnp.abs(leaf).max()) > 1e-4  # more than rounding


@pytest.mark.slow
def test_keys_enter_the_queue_after_the_loss_and_videos_do_not_repel_themselves():
  config, _, params, aux, gradient = started(**PAPER)

  def loss(aux, video):
    rows = {**batch(config), "index": np.full(8, video, np.int32)}
    (_, (aux, outputs)), _ = gradient(params, aux, rows, jax.random.key(0), 0)
    return aux, {name: np.asarray(value) for name, value in outputs.items()}

  after, one = loss(aux, 5)
  queue = after["queues"]["visual"]
  assert queue.ids.tolist() == [[5] * 8, [-1] * 8]
  np.testing.assert_array_equal(queue.keys[1], aux["queues"]["visual"].keys[1])
  after, two = loss(after, 5)
  after, three = loss(after, 5)
  fill_and_age = [(x["queue_fill"][0], x["queue_age"][0]) for x in (one, two, three)]
  assert fill_and_age == [(0, 0), (0.5, 1), (1, 1.5)]
  np.testing.assert_allclose(three["loss"], 0, atol=1e-6)  # no negative is left
  _, other = loss(after, 6)
  assert other["loss"].min() > 1


@pytest.mark.slow
def test_rows_that_are_not_valid_count_nowhere_and_enter_no_queue():
  config, method, params, aux, gradient = started(**PAPER)
  rows = batch(config, first=100)
  rows["valid"][[3, 5]] = False
  for name in ("video", "motion", "extent"):
    rows[name][[3, 5]] = 0
  (loss, (after, outputs)), grads = gradient(params, aux, rows, jax.random.key(0), 0)
  kept = rows["valid"]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, grads)))
  assert float(loss) == pytest.approx(float(outputs["loss"][kept].mean()), rel=1e-5)
  for name, queue in after["queues"].items():
    before = aux["queues"][name]
    ids = np.where(kept, np.arange(100, 108), contrast.EMPTY)
    np.testing.assert_array_equal(queue.ids[0], ids)
    for row in (3, 5):  # what would have been overwritten stays a negative
      np.testing.assert_array_equal(queue.keys[0, row], before.keys[0, row])
  found = method.metrics.single_from_model_output(**outputs).compute()
  rates = rows["pass_rate"][kept]
  assert float(found["pass_rate"]) == pytest.approx(rates.mean())
  assert float(found["fallback"]) == pytest.approx((rates == 0).mean())


@pytest.mark.slow
def test_prediction_repeats_itself_and_leaves_out_no_negative():
  current, _ = run(2, **RESUMED)
  config, method, *_ = trainer(1, **RESUMED)
  predict = jax.jit(method.predict)
  rows = batch(config, seed=9)  # numbers that are in the queue, as other videos'
  one, other = (predict(current.params, current.aux, rows) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, one, other)
  queues = jax.tree.map(jnp.copy, current.aux["queues"])
  unnamed = {k: q._replace(ids=jnp.full_like(q.ids, -1)) for k, q in queues.items()}
  same = predict(current.params, {**current.aux, "queues": unnamed}, rows)
  np.testing.assert_array_equal(one["loss"], same["loss"])


def test_spread_tells_a_collapsed_embedding_from_an_even_one():
  mask = jnp.arange(64) < 60
  even = contrast.normalize_embedding(jax.random.normal(jax.random.key(0), (64, 16)))
  assert float(contrast.spread(even, mask)) == pytest.approx(1, abs=0.05)
  same = jnp.broadcast_to(even[:1], even.shape)
  assert float(contrast.spread(same, mask)) == pytest.approx(0, abs=1e-3)
  only_bad_rows_differ = jnp.where(mask[:, None], same, even)
  assert float(contrast.spread(only_bad_rows_differ, mask)) < 1e-3


@pytest.mark.slow
def test_the_spread_of_features_shows_a_collapse_that_the_norm_hides():
  config, _, params, aux, gradient = started(**PAPER)
  assert config.method.projection_norm
  visual = {**params["visual"]}
  visual["encoder"] = jax.tree.map(jnp.zeros_like, visual["encoder"])
  params = {**params, "visual": type(params["visual"])(visual)}
  (_, (_, found)), _ = gradient(params, aux, batch(config), jax.random.key(0), 0)
  assert float(found["visual_feature_spread"][0]) < 1e-3
  assert float(found["motion_feature_spread"][0]) > 1e-2


@pytest.mark.slow
def test_keys_share_their_batch_norm_group_with_other_videos_than_queries():
  clip = jax.random.normal(jax.random.key(0), (8, 4, 32, 32, 3))

  def keys(clip, groups, regroup):
    pair = Modist(smoke(bn_groups=groups, key_regroup=regroup)).pairs["visual"]
    _, aux = jax.jit(pair.init)(jax.random.key(0))
    embed = jax.jit(functools.partial(pair.embed_keys, train=True))
    return np.asarray(embed(aux, clip)[0])

  order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
  found = keys(clip, 2, True)
  # The norm at the end divides by deviations that are small, rounding included.
  np.testing.assert_allclose(found[order], keys(clip[order], 2, False), atol=1e-4)
  assert np.abs(found - keys(clip, 2, False)).max() > 1e-2
  np.testing.assert_allclose(keys(clip, 1, True), keys(clip, 1, False), atol=1e-4)


@pytest.mark.slow
def test_the_encoder_is_the_visual_network():
  _, method, params, aux, _ = started(**PAPER)
  encoder = method.encoder(params, aux)
  assert encoder.features == tiny.Encoder.features
  kernel = params["visual"]["encoder"]["path"]["convs"][0]["kernel"]
  np.testing.assert_array_equal(encoder.path.convs[0].kernel[...], kernel)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(method=dict(loss_visual=0.0, loss_cross=0.0)), "visual network must learn"),
    (dict(method=dict(cross_negatives="both")), "query, key"),
    (dict(method=dict(motion="edge")), "Did you mean 'edges'"),
    (
      dict(method=dict(queue_size=62), train=dict(accumulate_steps=2)),
      r"method\.queue_size=62 .* of 4 \(train\.batch_size / train\.acc.* are 60 and 64",
    ),
    (dict(method=dict(temperature=0.0)), "temperature=0.0 must be above 0"),
    (dict(method=dict(size=100)), "does not fit"),
    (dict(method=dict(projection_layers=0)), "layers"),
    (dict(method=dict(motion="frame_difference")), "data.flow=''"),
    (dict(data=dict(edge_scale="5")), "edge_scale"),
    (dict(method=dict(area=(0.5, 1.5))), "area"),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  config = smoke()
  for section, values in settings.items():
    config[section].update(values)
  with pytest.raises(UserError, match=message):
    make_method(config)


def test_devices_that_do_not_share_the_rows_of_a_queue_are_refused():
  class Mesh:
    size = 3

  with pytest.raises(UserError, match=r"multiple of 3 .*sizes are 6 and 9"):
    Modist(smoke()).check_training(Mesh())
