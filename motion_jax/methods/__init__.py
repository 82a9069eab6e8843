"""The methods by name."""

from ml_collections import ConfigDict

from motion_jax.config import choose
from motion_jax.methods.base import Method
from motion_jax.methods.classify import Classify
from motion_jax.methods.detect import Detect
from motion_jax.methods.joint import Joint
from motion_jax.methods.mas import Mas
from motion_jax.methods.modist import Modist
from motion_jax.methods.mosi import Mosi

METHODS = {
  "mosi": Mosi,
  "modist": Modist,
  "mas": Mas,
  "joint": Joint,
  "classify": Classify,
  "detect": Detect,
}


def make_method(config: ConfigDict) -> Method:
  """Builds the method that `config.method.name` names.

  Raises:
    UserError: for an unknown method or network, or impossible settings. Any other
      error is a fault of the program's.
  """
  return method_class(config)(config)


def method_class(config: ConfigDict) -> type[Method]:
  """Returns the class that `config.method.name` names.

  Raises:
    UserError: for an unknown method.
  """
  return METHODS[choose("method.name", config.method.name, [*METHODS])]
