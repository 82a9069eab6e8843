"""Convolution and pooling: every lowering computes the same, forward and backward."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from motion_jax.models import build_model, common, conv, patches, resnet3d

LOWERINGS = ("native", "folded")
# (input channels, kernel, strides); the padding is always half the kernel.
STEPS = [
  (3, (1, 7, 7), (1, 2, 2)),
  (3, (3, 7, 7), (1, 2, 2)),
  (3, (5, 7, 7), (1, 2, 2)),
  (6, (1, 3, 3), (1, 1, 1)),
  (6, (1, 3, 3), (1, 2, 2)),
  (6, (3, 3, 3), (1, 1, 1)),
  (6, (3, 3, 3), (1, 2, 2)),
  (6, (3, 3, 3), (2, 2, 2)),
  (6, (1, 1, 1), (1, 1, 1)),
  (6, (1, 1, 1), (1, 2, 2)),
  (6, (1, 1, 1), (2, 2, 2)),
  (6, (3, 1, 1), (1, 1, 1)),
  (6, (3, 1, 1), (2, 1, 1)),
]
SIZE = (4, 8, 7)
# Odd and even sizes the other way round, a stem of many channels, a block of few, and
# planes that have shrunk to one pixel.
CORNERS = [
  (3, (1, 7, 7), (1, 2, 2), (1, 7, 8)),
  (6, (1, 1, 1), (2, 2, 2), (5, 7, 8)),
  (6, (3, 1, 1), (2, 1, 1), (5, 7, 8)),
  (6, (1, 7, 7), (1, 2, 2), (1, 8, 7)),
  (4, (3, 3, 3), (2, 2, 2), (5, 7, 8)),
  (6, (3, 3, 3), (2, 2, 2), (1, 1, 1)),
]
STEM_POOL = ((1, 3, 3), (1, 2, 2), (0, 1, 1))
CUBE_POOL = ((3, 3, 3), (2, 2, 2), (1, 1, 1))
POOLS = [
  ((4, 8, 7), *STEM_POOL, jnp.float32),
  ((3, 7, 8), *STEM_POOL, jnp.float32),
  ((1, 1, 1), *STEM_POOL, jnp.float32),
  ((4, 8, 7), *STEM_POOL, jnp.bfloat16),
  ((4, 8, 7), *CUBE_POOL, jnp.float32),
  ((5, 7, 8), *CUBE_POOL, jnp.float32),
  ((5, 7, 8), (1, 2, 2), (1, 2, 2), (0, 0, 0), jnp.float32),
]


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def example(inputs, kernel, strides, size, batch=2, outputs=5):
  """A video, a kernel and the keyword arguments of a convolution."""
  padding = tuple(taps // 2 for taps in kernel)
  arguments = {"strides": strides, "padding": padding}
  return normal(0, batch, *size, inputs), normal(1, *kernel, inputs, outputs), arguments


def waves(y):
  """Numbers in [-1, 1] without symmetry, that cost no time to compile."""
  return jnp.asarray(np.sin(1 + np.arange(y.size) ** 1.5).reshape(y.shape), y.dtype)


@functools.partial(jax.jit, static_argnums=(0, 3))
def output_and_gradients(function, x, kernel, lowering):
  """The output, and the gradients of its product with waves."""
  y, pull = jax.vjp(functools.partial(function, lowering=lowering), x, kernel)
  return y, *pull(waves(y))


def assert_close(actual, expected, tolerance):
  expected = np.asarray(expected, np.float64)
  bound = tolerance * np.abs(expected).max()
  np.testing.assert_allclose(
    np.asarray(actual, np.float64), expected, rtol=0, atol=bound
  )


def tap_by_tap(x, kernel, strides, padding):
  """The definition of a convolution, in float64."""
  x = np.pad(x.astype(np.float64), [(0, 0), *((p, p) for p in padding), (0, 0)])
  steps = [
    (size - taps) // stride + 1
    for size, taps, stride in zip(x.shape[1:4], kernel.shape, strides, strict=False)
  ]
  total = 0.0
  for tap in np.ndindex(kernel.shape[:3]):
    window = tuple(
      slice(start, start + (count - 1) * stride + 1, stride)
      for start, count, stride in zip(tap, steps, strides, strict=True)
    )
    total = total + x[:, *window] @ kernel[tap].astype(np.float64)
  return total


@pytest.mark.parametrize(
  ("inputs", "kernel", "strides", "size"),
  [(*step, SIZE) for step in STEPS] + CORNERS,
)
def test_lowerings_agree_forward_and_in_both_gradients(inputs, kernel, strides, size):
  x, weights, arguments = example(inputs, kernel, strides, size)
  function = functools.partial(conv.conv3d, **arguments)
  native, folded = (output_and_gradients(function, x, weights, n) for n in LOWERINGS)
  assert_close(native[0], tap_by_tap(x, weights, **arguments), 1e-4)
  for ours, reference in zip(folded, native, strict=True):
    assert ours.shape == reference.shape
    assert_close(ours, reference, 1e-4)


def test_native_kernels_of_few_channels_see_frames_as_channels():
  x, weights, arguments = example(3, (5, 7, 7), (1, 2, 2), SIZE)
  convolve = jax.jit(functools.partial(conv.conv3d, lowering="native", **arguments))
  text = convolve.lower(x, weights).as_text()
  operands = re.findall(r"stablehlo.convolution.* : \(tensor<(\w+)>", text)
  assert operands == ["8x8x7x15xf32"]


def test_every_convolution_of_the_networks_is_compared():
  used = set()
  for name in resnet3d.VARIANTS:
    network = nnx.eval_shape(lambda name=name: build_model(name, rngs=nnx.Rngs(0)))
    for path in network.paths():
      used |= {(step.kernel.shape[:3], step.strides) for step in path.convs}
  assert used <= {step[1:] for step in STEPS}


def test_groups_of_frames_add_up_to_the_whole(monkeypatch):
  x, weights, arguments = example(6, (3, 3, 3), (1, 1, 1), (3, 5, 4))
  function = functools.partial(conv.conv3d, **arguments)
  native = output_and_gradients(function, x, weights, "native")
  monkeypatch.setattr(patches, "_PATCH_BYTES", 2 * 5 * 4 * 9 * 6 * 4)  # two frames each
  folded = output_and_gradients(function, x, weights, "folded")
  for ours, reference in zip(folded, native, strict=True):
    assert_close(ours, reference, 1e-4)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("step", [(3, (1, 7, 7), (1, 2, 2)), (6, (3, 3, 3), (2, 2, 2))])
def test_padding_is_the_same_at_both_ends(lowering, step):
  x, weights, arguments = example(*step, SIZE)
  padded = np.pad(x, [(0, 0), *((p, p) for p in arguments.pop("padding")), (0, 0)])
  padding = tuple(taps // 2 for taps in step[1])
  convolve = jax.jit(functools.partial(conv.conv3d, lowering=lowering, **arguments))
  explicit = convolve(padded, weights)
  arguments["padding"] = padding
  convolve = jax.jit(functools.partial(conv.conv3d, lowering=lowering, **arguments))
  plain = convolve(x, weights)
  assert_close(plain, explicit, 1e-5)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("step", [STEPS[0], STEPS[7], STEPS[12]])
def test_bfloat16_is_kept_and_close_to_float32(lowering, step):
  x, weights, arguments = example(*step, SIZE)
  x, weights = jnp.asarray(x, jnp.bfloat16), jnp.asarray(weights, jnp.bfloat16)
  function = functools.partial(conv.conv3d, **arguments)
  half = output_and_gradients(function, x, weights, lowering)
  wide = x.astype(jnp.float32), weights.astype(jnp.float32)
  for ours, reference in zip(
    half, output_and_gradients(function, *wide, "native"), strict=True
  ):
    assert ours.dtype == jnp.bfloat16
    assert_close(ours, reference, 0.02)


@pytest.mark.parametrize(("size", "window", "strides", "padding", "dtype"), POOLS)
def test_max_pool_takes_the_first_maximum(size, window, strides, padding, dtype):
  rng = np.random.default_rng(0)
  # Few different values, so that most windows have several maxima; the whole numbers
  # of the gradient add up exactly in any order.
  x = jnp.asarray(rng.integers(-1, 2, (2, *size, 3)), dtype)

  def reduce_window(x):
    edges = [(0, 0), *((p, p) for p in padding), (0, 0)]
    sizes = (1, *window, 1), (1, *strides, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, *sizes, edges)

  shape = jax.eval_shape(reduce_window, x).shape
  gradient = jnp.asarray(rng.integers(-9, 10, shape), dtype)
  pool = functools.partial(
    conv.max_pool, window=window, strides=strides, padding=padding
  )

  @jax.jit
  def outputs_and_gradients(x):
    functions = [functools.partial(pool, lowering=name) for name in LOWERINGS]
    results = [jax.vjp(function, x) for function in (reduce_window, *functions)]
    return [(y, *pull(gradient)) for y, pull in results]

  expected, *results = outputs_and_gradients(x)
  for result in results:
    for ours, reference in zip(result, expected, strict=True):
      assert ours.dtype == dtype
      np.testing.assert_array_equal(ours, reference)


def test_an_unknown_lowering_is_named():
  x, weights, arguments = example(3, (1, 1, 1), (1, 1, 1), (1, 2, 2))
  with pytest.raises(ValueError, match=r"lowering 'winograd' is unknown.*folded"):
    conv.conv3d(x, weights, lowering="winograd", **arguments)
  with pytest.raises(ValueError, match="winograd"):
    conv.max_pool(
      x, window=(1, 2, 2), strides=(1, 2, 2), padding=(0, 0, 0), lowering="winograd"
    )
  with pytest.raises(ValueError, match="winograd"):
    build_model("r3d_18", rngs=nnx.Rngs(0), lowering="winograd")


def test_rematerialisation_changes_neither_gradients_nor_statistics(monkeypatch):
  shallow = resnet3d.Variant(
    (0, 0, 0, 1), widths=(1, 1, 1, 2), stem=(1, 7, 7), stem_pool=True
  )
  monkeypatch.setitem(resnet3d.VARIANTS, "shallow", shallow)
  video = normal(2, 4, 4, 32, 32, 3)

  def run(remat):
    model = build_model(
      "shallow", rngs=nnx.Rngs(0), width=4, remat=remat, lowering="native"
    )
    graphdef, params, stats = common.split(model)

    def loss(params):
      features, after = common.call(graphdef, params, stats, video, train=True)
      return jnp.square(features - 0.5).sum(), after

    gradient = jax.value_and_grad(loss, has_aux=True)
    return jax.jit(gradient)(params), "remat" in str(jax.make_jaxpr(gradient)(params))

  (plain, stored), (recomputed, marked) = run(False), run(True)
  assert (stored, marked) == (False, True)
  assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(plain[1])) > 0
  pairs = zip(*map(jax.tree.leaves, (recomputed, plain)), strict=True)
  for ours, reference in pairs:
    assert_close(ours, reference, 1e-4)


def _pooled_path():
  settings = common.Settings(eps=1e-3, groups=2, dtype=jnp.float32, lowering="native")
  steps = [(3, 4, (1, 3, 3), (1, 1, 1))]
  path = common.ConvPath(
    steps, settings=settings, pool=((1, 3, 3), (1, 2, 2), (0, 1, 1))
  )
  path.convs[0].kernel[...] = jnp.asarray(normal(0, 1, 3, 3, 3, 4))
  path.norms[0].scale[...] = jnp.array([1.5, -0.5, 1.0, -2.0])
  path.norms[0].bias[...] = jnp.array([0.1, 0.2, 0.3, -0.4])
  return path


def test_pooling_before_the_normalisation_changes_no_number():
  x = normal(1, 4, 2, 9, 8, 3)

  def found(path, x):
    return nnx.relu(path(x))

  def expected(path, x):
    x = nnx.relu(path.norms[0](path.convs[0](x)))
    options = dict(window=(1, 3, 3), strides=(1, 2, 2), padding=(0, 1, 1))
    return conv.max_pool(x, **options, lowering="native")

  results = []
  for function in (found, expected):
    path = _pooled_path()

    def loss(path, x, function=function):
      return (function(path, x) ** 2).sum()

    results.append((function(path, x), nnx.state(path, nnx.BatchStat)))
    results[-1] += (nnx.grad(loss, argnums=(0, 1))(path, x),)
    path.eval()
    results[-1] += (function(path, x),)
  ours, theirs = (jax.tree.leaves(result) for result in results)
  assert len(ours) == len(theirs) == 8
  for one, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_frames_as_rows_of_the_batch_give_the_same_network(monkeypatch):
  row = resnet3d.Variant(
    (1, 1, 1, 1),
    widths=(1, 1, 1, 2),
    times=(1, 1, 3, 3),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
    stem=(1, 7, 7),
    stem_pool=True,
  )
  assert row.moves == (False, False, False, True, True)
  monkeypatch.setitem(resnet3d.VARIANTS, "shallow", row)
  video, results = normal(0, 6, 4, 32, 32, 3), []
  for lowering in LOWERINGS:
    options = dict(rngs=nnx.Rngs(0), width=4, bn_groups=3, lowering=lowering)
    network = build_model("shallow", **options)
    network.set_attributes(raise_if_not_found=False, interleaved=True)
    graphdef, params, stats = common.split(network)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params, graphdef=graphdef, stats=stats):
      options = dict(train=True, method="endpoints")
      ends, stats = common.call(graphdef, params, stats, video, **options)
      return (ends["conv4"] ** 2).mean(), (ends, stats)

    results.append(jax.tree.leaves(run(params)))
  for one, other in zip(*results, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-3 * np.abs(other).max())
