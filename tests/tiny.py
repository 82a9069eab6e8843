"""The smallest method, a linear regression, and the smallest networks, for tests."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from flax import nnx

from motion_jax.methods.base import Method
from motion_jax.models import common, resnet3d


@flax.struct.dataclass
class Metrics(metrics.Collection):
  loss: metrics.Average.from_output("loss")


class Regression(Method):
  """Predicts `target` [B] from `inputs` [B, 3]; aux counts the calls of `loss`."""

  metrics = Metrics

  def __init__(self):
    pass

  def init(self, key):
    return {"kernel": jax.random.normal(key, (3, 1))}, {"calls": jnp.zeros(())}

  def loss(self, params, aux, batch, key, step):
    outputs = self.predict(params, aux, batch)
    mean = jnp.sum(outputs["loss"] * outputs["mask"]) / jnp.sum(outputs["mask"])
    noise = 1e-3 * jax.random.normal(key) * params["kernel"].sum()
    return mean + noise, ({"calls": aux["calls"] + 1}, outputs)

  def predict(self, params, aux, batch):
    error = (batch["inputs"] @ params["kernel"])[:, 0] - batch["target"]
    return {"loss": error**2, "mask": batch["valid"]}


def batch(seed, rows=8):
  inputs = jax.random.normal(jax.random.key(seed), (rows, 3))
  return {
    "inputs": inputs,
    "target": inputs @ jnp.asarray([1.0, -2.0, 0.5]),
    "valid": jnp.arange(rows) != 3,
  }


class Encoder(nnx.Module):
  """Two convolutions with BatchNorm: compiles in a second."""

  features = 16

  def __init__(self, *, rngs, in_channels=3, bn_groups=1, dtype=jnp.float32, **_):
    settings = common.Settings(
      eps=1e-5, groups=bn_groups, dtype=dtype, lowering="folded"
    )
    steps = [(in_channels, 8, (1, 5, 5), (1, 4, 4)), (8, 16, (3, 3, 3), (1, 2, 2))]
    self.path = common.ConvPath(steps, settings=settings)
    common.draw_kernels(self.path.convs, rngs.params(), "he")

  def __call__(self, video):
    return nnx.relu(self.path(video)).astype(jnp.float32).mean((1, 2, 3))

  def stage_paths(self):
    return [("path",)]


class Frozen(Method):
  """An encoder of random weights times `scale`, which is 0 at initialisation."""

  metrics = Metrics
  TRAINED = {"scale": np.ones((), np.float32)}, {}  # before devices are joined

  def __init__(self, config):
    del config

  def init(self, key):
    return {"scale": jnp.zeros(())}, {}

  def encoder(self, params, aux):
    module = Encoder(rngs=nnx.Rngs(0))
    scaled = jax.tree.map(lambda x: x * params["scale"], nnx.state(module))
    nnx.update(module, scaled)
    module.eval()
    return module


def build_model(name, **options):
  """In place of `models.build_model`, whatever the name."""
  return Encoder(**options)


def shorten_network(replace=dict.__setitem__, blocks=(0, 0, 0, 1)) -> None:
  """Leaves MoSI's network so many blocks per stage: it compiles sooner."""
  variants, name = resnet3d.VARIANTS, "r2d3d_18"
  replace(variants, name, dataclasses.replace(variants[name], blocks=blocks))
