"""Configuration: config-file arguments, durations, differences, user errors.

Pure Python beside `ml_collections`, so that config files may import it.
"""

import ast
import difflib
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

_DURATION = re.compile(r"^\s*([0-9]*\.?[0-9]+)\s*(%|steps?|epochs?|examples?)\s*$")


# Keys that configs have got since the first runs were stored, each with the value that
# means what was done before there was the key. Every new key that stored runs lack
# enters here (a new method's own do not), so that older runs go on, load and are
# evaluated as they were trained; where its default is another value, resuming names
# both. 'modist.' and 'mosi.' are sections of joint's configs, which have the keys of
# those methods' 'method.'.
ADDED = {
  "data.detected_iou": 0.0,
  "data.heldout_by": "file",
  "data.flow_short_side": None,  # motion of any size
  "data.records": "",  # unknown
  "eval.online_videos": 0,
  "eval.place_scores": False,
  "method.projection_norm": False,
  "method.segments": False,
  "model.precision": "default",
  "modist.projection_norm": False,
  "train.skip_damaged": False,
}
# Keys, and whole sections, that stored configs may have and nothing reads any more, by
# the method that had them, '' for all: they are left out of what is loaded.
GONE = {
  "data.sampler": "",  # is the method's
  "method.motion": "joint",
  "method.motion_frames": "joint",
  "method.loss_motion": "joint",
  "method.loss_cross": "joint",
}


class UserError(ValueError):
  """A mistake of the user's, shown as one message with its fix; exit code 2."""


def parse_arg(
  arg: str | None, *, words: Sequence[str], **defaults: Any
) -> ml_collections.ConfigDict:
  """Parses what follows the colon in `--config=configs/mosi.py:hmdb51,speeds=3`.

  Args:
    arg: the text after the colon; None or '' chooses `words[0]`.
    words: the recipes that the config file offers; the first is the default.
    **defaults: names of the `key=value` pairs the file takes, with their defaults; a
      value must have its default's type.

  Returns:
    A ConfigDict of `word` and every name in `defaults`.

  Raises:
    UserError: on an unknown word or key, or a value of the wrong type; the message
      names the known ones.
  """
  result = ml_collections.ConfigDict({"word": words[0], **defaults})
  for position, part in enumerate(filter(None, (arg or "").split(","))):
    key, equals, text = part.strip().partition("=")
    if not equals and position == 0:
      result.word = choose("config word", key, words)
    elif key in defaults:
      result[key] = _typed(key, text if equals else "True", defaults[key])
    else:
      raise UserError(unknown("config argument", key, [*defaults]))
  return result


def choose(what: str, name: str, known: Sequence[str]) -> str:
  """Returns `name` if it is one of `known`, else raises UserError that names them."""
  if name not in known:
    raise UserError(unknown(what, name, known))
  return name


def unknown(what: str, name: str, known: Sequence[str]) -> str:
  """The message for a name nobody knows, with the nearest known one."""
  close = difflib.get_close_matches(str(name), known, n=1) or [
    long for long in known if name == "".join(word[:1] for word in long.split("_"))
  ]  # lr is learning_rate
  hint = f" Did you mean {close[0]!r}?" if close else ""
  return f"unknown {what} {name!r}; known: {', '.join(known)}.{hint}"


def local_path(path: str | os.PathLike) -> pathlib.Path:
  """A path that the user has given, with `~` replaced; every such path comes here.

  Raises:
    UserError: if it is a URL, of which pathlib would make a folder 'gs:'.
  """
  path = os.fspath(path)
  if re.match(r"[A-Za-z][\w+.-]+:/", path):
    raise UserError(
      f"{path} is not on a disk, and this version reads and writes files alone: mount "
      "the bucket (gcsfuse, mount-s3) or copy what is needed, and give that path"
    )
  return pathlib.Path(path).expanduser()


def steps_of(
  duration: str, *, examples: int, batch_size: int, total_steps: int | None = None
) -> int:
  """Converts a duration to train steps.

  Args:
    duration: '400 steps', '100 epochs', '50000 examples' or, of the whole training,
      '10%'. '0 steps' is a valid zero.
    examples: number of examples in one epoch.
    batch_size: examples per step.
    total_steps: length of the training; needed for percentages.

  Returns:
    The number of steps, rounded to the nearest whole one; at least 1 unless the
    duration is zero.

  Raises:
    UserError: if the text is not a duration.
  """
  match = _DURATION.match(str(duration))
  if not match or (match[2] == "%" and total_steps is None):
    raise UserError(
      f"{duration!r} is not a duration; write '400 steps', '100 epochs', "
      "'50000 examples' or, below the whole training's length, '10%'"
    )
  number, unit = float(match[1]), match[2].rstrip("s")
  if unit == "step":
    steps = number
  elif unit == "epoch":
    steps = number * examples / batch_size
  elif unit == "example":
    steps = number / batch_size
  else:
    steps = number / 100 * total_steps
  return max(1, round(steps)) if number else 0


def difference(stored: Mapping, current: Mapping, prefix: str = "") -> list[str]:
  """Lists the keys in which two configs differ, as 'optim.lr: 0.001 -> 0.002'.

  Tuples and lists are equal when their items are, since JSON knows only lists.
  """
  rows = []
  for key in sorted({*stored, *current}):
    name = prefix + key
    old, new = stored.get(key, "(absent)"), current.get(key, "(absent)")
    if isinstance(old, Mapping) and isinstance(new, Mapping):
      rows += difference(old, new, name + ".")
    elif _plain(old) != _plain(new):
      rows.append(f"{name}: {old} -> {new}")
  return rows


def completed(config: Mapping) -> dict[str, Any]:
  """A copy of a config of an older run with today's keys; see `ADDED` and `GONE`.

  A whole section that the config lacks stays away. To compare two configs, complete
  both: not every config file has every key.
  """
  config = {
    key: dict(item) if isinstance(item, Mapping) else item
    for key, item in config.items()
  }
  if config.get("data", {}).get("sampler") == "segments":
    config["method"].setdefault("segments", True)
  method = config.get("method", {}).get("name")
  for name in [name for name, of in GONE.items() if of in ("", method)]:
    section, _, key = name.partition(".")
    (config.get(section, {}) if key else config).pop(key or section, None)
  for name, value in ADDED.items():
    section, _, key = name.partition(".")
    if section in config:
      config[section].setdefault(key, value)
  return config


def _plain(value):
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _typed(key, text, default):
  if isinstance(default, str):
    return text
  try:
    value = ast.literal_eval(text)
    if isinstance(default, float) and isinstance(value, int):
      value = float(value)
    if type(value) is type(default):
      return value
  except (SyntaxError, ValueError):
    pass
  kind = type(default).__name__
  raise UserError(f"config argument {key}={text!r} must be a {kind}, like {default!r}")
