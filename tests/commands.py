"""Reads command lines as `motion_jax.main` does, without running anything."""

import contextlib
import sys
from unittest import mock

from absl import flags
from conftest import ROOT

from motion_jax import main
from motion_jax.commands import command


def parsed(words):
  """Returns (exit code, config, workdir) of arguments of `motion_jax.main`."""
  for name in [name for name in flags.FLAGS if name.startswith("config.")]:
    delattr(flags.FLAGS, name)  # overrides are defined anew by every parse
  flags.FLAGS.unparse_flags()
  with contextlib.chdir(ROOT), mock.patch.object(sys, "argv", ["main", *words]):
    code = command.run(lambda: main.MODES[flags.FLAGS.config.mode], sys.argv)
    return (code, None, None) if code else (0, flags.FLAGS.config, flags.FLAGS.workdir)
