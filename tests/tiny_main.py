"""`motion_jax.main` with a method that compiles in a second and has a split queue.

For tests of processes: with STEP_SECONDS in the environment, every step takes that
much longer, so that there is time for a signal; LATE_PROCESS does not see the
checkpoint of LATE_STEP at first; storage may fail for STORAGE_SECONDS.
"""

import os
import sys
import time

import cv2
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from clu import metrics

from motion_jax import main, methods, train
from motion_jax.commands import command
from motion_jax.data import storage
from motion_jax.data.clips import SourceFrame
from motion_jax.methods.base import Method
from motion_jax.ops import contrast
from motion_jax.scale import sharding

DIM = 8


@flax.struct.dataclass
class Metrics(metrics.Collection):
  loss: metrics.Average.from_output("loss")


class Pictures(Method):
  """Contrasts a picture with its noisy copy, against a queue of earlier pictures."""

  metrics = Metrics

  def __init__(self, config):
    super().__init__(config)
    self._slot = config.train.batch_size

  def sampler(self, split, source=None):
    data = self.config.data
    return SourceFrame(data.short_side, canvas=tuple(data.canvas))

  def init(self, key):
    kernel = jax.random.normal(key, (12, DIM))
    queue = contrast.make_queue(key, size=32, batch_size=self._slot, dim=DIM)
    return {"kernel": kernel}, {"queue": queue, "calls": jnp.zeros(())}

  def aux_shardings(self, mesh):
    return {
      "queue": contrast.queue_shardings(mesh, self._slot),
      "calls": sharding.replicated(mesh),
    }

  def loss(self, params, aux, batch, key, step):
    colours = _colours(batch)
    noisy = colours + 0.1 * jax.random.normal(key, colours.shape)
    outputs, keys = self._scores(params, aux, batch, noisy)
    queue = contrast.enqueue(aux["queue"], keys, batch["index"], batch["valid"])
    aux = {"queue": queue, "calls": aux["calls"] + 1}
    return outputs["loss"].mean(), (aux, outputs)

  def predict(self, params, aux, batch):
    return self._scores(params, aux, batch, _colours(batch))[0]

  def save_figures(self, directory, batch, key):
    directory.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(directory / "pretext.png"), np.asarray(batch["image"][0]))

  def save_results(self, directory, params, aux, batch):
    colours = jax.device_get(_colours(batch) @ params["kernel"])
    np.save(directory / "embeddings.npy", colours)

  def _scores(self, params, aux, batch, noisy):
    query, key = (
      contrast.normalize_embedding(rows @ params["kernel"])
      for rows in (noisy, _colours(batch))
    )
    negatives = contrast.score_negatives(query, aux["queue"], batch["index"])
    loss = contrast.info_nce(query, key, negatives, batch["valid"]).loss
    return {"loss": loss, "mask": batch["valid"]}, key


def _colours(batch):
  """Mean colours of the quarters [B, 12] of pictures."""
  rows, height, width, _ = batch["image"].shape
  quarters = batch["image"].reshape(rows, 2, height // 2, 2, width // 2, 3)
  return (quarters / 255.0 - 0.5).mean((2, 4)).reshape(rows, 12)


def slow_down(seconds):
  original = train.StopSignal.after

  def after(self, step):
    time.sleep(seconds)
    original(self, step)

  train.StopSignal.after = after


def see_late(process, step, times=3):
  """Hides a checkpoint from a process at first, as network file systems may."""
  original, left = ocp.CheckpointManager._load_checkpoint_infos, [times]

  def load(self, *args, **options):
    found = original(self, *args, **options)
    if jax.process_index() != process or not left[0]:
      return found
    left[0] -= 1
    print("did not see it yet", file=sys.stderr)
    return [each for each in found if each.step != step]

  ocp.CheckpointManager._load_checkpoint_infos = load


if __name__ == "__main__":
  methods.METHODS["mosi"] = Pictures
  slow_down(float(os.environ.get("STEP_SECONDS", 0)))
  storage.PATIENCE = float(os.environ.get("STORAGE_SECONDS", storage.PATIENCE))
  if "LATE_STEP" in os.environ:
    see_late(*(int(os.environ[f"LATE_{name}"]) for name in ("PROCESS", "STEP")))
  sys.exit(command.run(main.main, sys.argv))
