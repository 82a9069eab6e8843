"""Rebuilds golden weights and inputs from the recipe in the manifest."""

import functools
import json
import math
import pathlib
import zlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "golden"


@functools.cache
def fixture(name: str) -> dict:
  """The manifest's entry of a fixture, e.g. 'net_r3d18'."""
  manifest = json.loads((GOLDEN / "manifest.json").read_text())
  return manifest["fixtures"][name]


def arrays(name: str) -> dict[str, np.ndarray]:
  """The stored reference values of a fixture."""
  with np.load(GOLDEN / fixture(name)["file"]) as stored:
    return dict(stored)


@functools.cache
def weights(name: str) -> dict[str, np.ndarray]:
  """State entries by PyTorch name, float32, checked against their CRC-32."""
  entries = fixture(name)["state"]
  shapes = {entry["name"]: tuple(entry["shape"]) for entry in entries}
  result = {}
  for entry in entries:
    value = _entry(fixture(name), entry["name"], shapes)
    _check(entry, value)
    result[entry["name"]] = value
  return result


def normal_input(name: str) -> np.ndarray:
  """The standard normal input of a network fixture, channels first, float32."""
  recipe = fixture(name)["input"]
  stream = _stream(fixture(name), recipe["name"])
  value = stream.standard_normal(recipe["shape"]).astype(np.float32)
  _check(recipe, value)
  return value


def clips(name: str) -> np.ndarray:
  """The same input as [B, T, H, W, C] clips."""
  value = normal_input(name)
  value = value.reshape(-1, *value.shape[-4:])
  return np.ascontiguousarray(np.moveaxis(value, 1, -1))


def _entry(info, name, shapes):
  shape, stream = shapes[name], _stream(info, name)
  leaf = name.rpartition(".")[2]
  weight_dimensions = len(shapes.get(name.removesuffix(leaf) + "weight", ()))
  if leaf == "running_mean":
    value = 0.1 * stream.standard_normal(shape)
  elif leaf == "running_var":
    value = stream.uniform(0.5, 1.5, shape)
  elif leaf == "weight" and len(shape) > 1:
    fan_in = math.prod(shape[1:])
    value = stream.standard_normal(shape) * (info["gain"] / math.sqrt(fan_in))
  elif leaf == "weight":
    value = 1 + 0.1 * stream.standard_normal(shape)
  else:
    scale = 0.1 if weight_dimensions == 1 else 0.05
    value = scale * stream.standard_normal(shape)
  return value.astype(np.float32)


def _stream(info, name):
  return np.random.default_rng([info["seed"], zlib.crc32(name.encode())])


def _check(entry, value):
  if zlib.crc32(np.ascontiguousarray(value, "<f4").tobytes()) != entry["crc32"]:
    raise AssertionError(f"{entry['name']} differs from the manifest's CRC-32")
