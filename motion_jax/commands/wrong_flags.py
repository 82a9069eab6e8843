"""What is wrong with a command line or its config file, in one message."""

import itertools
import os
import pathlib
import re
import runpy
import shlex
import traceback
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from motion_jax.config import UserError, unknown

_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")
_VALUE = re.compile(r"flag --config\.([^\s=]+)=")


def explained(error: Exception, argv: Sequence[str]) -> UserError | None:
  """Says what an error of parsing the flags is about.

  Args:
    error: what the parsing has raised.
    argv: the command line.

  Returns:
    What to raise in its place; None if it is no mistake of the user's.
  """
  path, _, argument = _last(argv, "config").partition(":")
  if not path and isinstance(error, OSError):
    return UserError("--config= is empty; try --config=configs/mosi.py")
  if path:
    try:
      config = _load(path, *([argument] if argument else []))
    except UserError as own:
      return own
    except Exception as own:
      return UserError(_of_config_file(path, own))
    message = _unknown_key(config, argv) or _wrong_value(config, str(error), argv)
    if message:
      return UserError(message)
  return UserError(str(error)) if isinstance(error, flags.Error) else None


def _load(path, *argument):
  if not path.endswith(".py"):
    raise UserError(f"--config={path} is no Python file; try --config=configs/mosi.py")
  return runpy.run_path(path)["get_config"](*argument)


def _of_config_file(path, error):
  """The last line of the file that was run, and what went wrong there."""
  file = os.path.abspath(path)
  if isinstance(error, FileNotFoundError) and error.filename == file:
    return f"--config={path} does not exist{_elsewhere(path)}"
  frames = traceback.extract_tb(error.__traceback__)
  last = [frame for frame in frames if os.path.abspath(frame.filename) == file][-1:]
  lines = [*traceback.format_list(last), *traceback.format_exception_only(error)]
  return f"--config={path} cannot be loaded:\n" + "".join(lines).rstrip()


def _elsewhere(path):
  """What to do: go to the repository, unless the current folder is it."""
  here, clone = pathlib.Path.cwd(), pathlib.Path(__file__).parents[2]
  if (clone / path).is_file() and not os.path.isabs(path):
    return f" in {here}, which is not the repository: cd {shlex.quote(str(clone))}"
  if (here / "configs" / "mosi.py").is_file():
    return "; try --config=configs/mosi.py"
  return f" in {here}; the recipes are in the repository's folder configs: cd to it"


def _unknown_key(config, argv):
  """A message for the first override of a key that the config does not have."""
  for name in (match[1] for match in map(_OVERRIDE.match, argv) if match):
    section, place = config, "config"
    for key in name.split("."):
      if not isinstance(section, ConfigDict):
        return f"--config.{name}: {place} is a value, {section!r}, without keys"
      if key not in section:
        return f"--config.{name}: {_near(config, section, place, key)}"
      section, place = section[key], f"{place}.{key}"
  return None


def _near(config, section, place, key):
  text = unknown(f"key of {place}", key, [*section])
  others = [
    f"config.{name}.{key}"
    for name, other in config.items()
    if isinstance(other, ConfigDict) and key in other
  ]
  return f"{text} There is {' and '.join(others)}." if others else text


def _wrong_value(config, text, argv):
  """A message for a value of another type than the config's."""
  match = _VALUE.match(text)
  if not match:
    return None
  name = match[1]
  value = _last(argv, f"config.{name}")
  for key in name.split("."):
    config = config[key]
  if isinstance(config, ConfigDict):
    return f"--config.{name}={value} is a section; set its keys: {', '.join(config)}"
  kind = {int: "a whole number", float: "a number", bool: "True or False"}
  what = kind.get(type(config), f"a {type(config).__name__}")
  return f"--config.{name}={value} must be {what}, like {config!r}"


def _last(argv, name):
  """The value of a flag, '' without it; written in any way that absl takes."""
  value = ""
  for word, following in itertools.pairwise([*argv, ""]):
    flag, equals, rest = word.partition("=")
    if flag in (f"-{name}", f"--{name}"):
      value = rest if equals else following
  return value
