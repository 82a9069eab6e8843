"""`motion_jax.main` with a network for MoSI that compiles in a second.

With STEP_SECONDS in the environment every step takes that much longer, so that there is
time for a signal.
"""

import os
import sys

import tiny
import tiny_main

from motion_jax import main, models
from motion_jax.commands import command

if __name__ == "__main__":
  models.build_model = tiny.build_model
  tiny_main.slow_down(float(os.environ.get("STEP_SECONDS", 0)))
  sys.exit(command.run(main.main, sys.argv))
