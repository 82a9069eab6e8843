"""Uses a run of a method on devices that do not divide its training batch.

  python twelve_devices.py FOLDER modist     frame folders, in an environment of 12

prints the held-out metrics and what a training says.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import same_heldout
import tiny
from test_config import CONFIGS, load

from motion_jax import evaluate, load_encoder, models
from motion_jax.config import UserError
from motion_jax.methods import make_method
from motion_jax.ops import motion_inputs
from motion_jax.scale import sharding
from motion_jax.training import state
from motion_jax.training.checkpoint import Checkpoints


def main(folder, name):
  models.build_model = tiny.build_model
  motion_inputs.flow_of_pairs = same_heldout.quick_flow
  config = same_heldout.METHODS[name]()
  config.data.update(name="folder", path=folder, heldout_fraction=0.5)
  config.train.batch_size = config.eval.batch_size = 8
  config.eval.probe = config.eval.linear = False
  mesh, method = sharding.make_mesh(), make_method(config)
  run = pathlib.Path(folder).parent / name
  weights = state.initial_weights(method, jax.random.key(0), mesh)
  Checkpoints(run).save_weights(*weights, config.to_dict())

  encoder = load_encoder(run)
  clip = np.zeros((1, config.method.frames, 32, 32, 3), np.uint8)
  asked = load(CONFIGS / "evaluate.py").get_config()
  asked.init_from = str(run)
  values = evaluate.evaluate(asked, run / "evaluation")
  try:
    method.check_training(mesh)
    refusal = ""
  except UserError as error:
    refusal = str(error)
  features = encoder(clip).shape[1]
  print(json.dumps({"values": values, "refusal": refusal, "features": features}))


if __name__ == "__main__":
  main(*sys.argv[1:])
