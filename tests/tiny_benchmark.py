"""`motion_jax.benchmark` with a method that compiles in a second."""

import sys

import jax
import tiny

from motion_jax import methods
from motion_jax.commands import command
from motion_jax.data.clips import SourceFrame


class Colours(tiny.Regression):
  """Predicts the label from the mean colour of a picture."""

  def __init__(self, config):
    self.config = config

  def sampler(self, split, source=None):
    data = self.config.data
    return SourceFrame(data.short_side, canvas=tuple(data.canvas))

  def predict(self, params, aux, batch):
    return super().predict(params, aux, self.pretext(batch, key=None, step=None))

  def pretext(self, batch, key, step):
    with jax.named_scope("colours"):
      inputs = (batch["image"] / 255.0).mean((1, 2))
    return {"inputs": inputs, "target": batch["label"], "valid": batch["valid"]}

  def save_figures(self, directory, batch, key):
    directory.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
  from motion_jax import benchmark  # defines flags

  methods.METHODS["mosi"] = Colours
  sys.exit(command.run(benchmark.main, sys.argv))
