"""The picture of the pretext task shows what the first train step is trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import same_heldout
import same_steps
import tiny

from motion_jax import models
from motion_jax.methods import detect, make_method
from motion_jax.ops import motion_inputs
from motion_jax.scale import sharding
from motion_jax.training import state
from motion_jax.visualize import boxes, clips, statistics
from motion_jax.visualize import modist as modist_figures


@pytest.fixture
def drawn(monkeypatch):
  """What the pictures are made of, instead of pictures."""
  found = []

  def save_clips(path, clips, **_):
    found.extend(clips.values() if isinstance(clips, dict) else [clips])

  def save_statistics(path, video, *_, **__):
    found.append((video / 255.0 - 0.45) / 0.225)

  monkeypatch.setattr(clips, "save_clip_grid", save_clips)
  monkeypatch.setattr(modist_figures, "save_pretext", save_clips)
  monkeypatch.setattr(statistics, "save_statistics", save_statistics)
  monkeypatch.setattr(
    boxes, "save_boxes", lambda path, frames, *_, **__: found.append(frames)
  )
  monkeypatch.setattr(clips, "save_gif", lambda *_, **__: None)
  monkeypatch.setattr(statistics, "save_flow_gif", lambda *_, **__: None)
  return found


@pytest.fixture
def seen(monkeypatch, request):
  """What the networks are called with, while they are traced."""
  found = []

  class Encoder(same_steps.Encoder):
    def __call__(self, video):
      found.append(video)
      return super().__call__(video)

  def detector(self, video, people, rngs=None):
    found.append(video[:, video.shape[1] // 2])
    return jnp.zeros((*people.shape[:2], 80))

  if request.node.callspec.params["name"] != "detect":  # needs a ResNet
    monkeypatch.setattr(models, "build_model", lambda name, **more: Encoder(**more))
  monkeypatch.setattr(detect.Detector, "__call__", detector)
  monkeypatch.setattr(motion_inputs, "flow_of_pairs", same_heldout.quick_flow)
  return found


LONG = [pytest.param(name, 1, marks=pytest.mark.long) for name in ("joint", "detect")]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "parts"),
  [("mosi", 1), ("modist", 1), ("mas", 1), ("mas", 2), ("classify", 1), *LONG],
)
def test_the_clips_of_the_first_picture_are_those_of_the_first_loss(
  name, parts, drawn, seen, tmp_path
):
  config, batch = same_steps.TASKS[name]()
  config.train.accumulate_steps = parts
  for section in ("method", "mosi"):
    if config.get(section, {}).get("curriculum_steps"):
      config[section].curriculum_steps = 10
  method = make_method(config)
  batch, key = state.first_inputs(batch, jax.random.key(4), accumulate_steps=parts)

  @jax.jit
  def traced(weights, batch, key):
    seen.clear()
    method.loss(*weights, batch, key, 0)
    return list(seen)

  inputs = traced(jax.jit(method.init)(key), batch, key)
  # The pixels of the last rows, which may be another process's, need not be there.
  few = {k: array if k == "extent" else array[:4] for k, array in batch.items()}
  method.save_figures(tmp_path, few, key)
  assert len(drawn) == {"modist": 4, "joint": 6}.get(name, 1)
  for clip in drawn:
    alike = [rows for rows in inputs if rows.shape[1:] == clip.shape[1:]]
    errors = [np.abs(rows[: len(clip)] - clip).max() for rows in alike]
    assert min(errors) < 1e-4 < clip.std(), name


class Keys(tiny.Regression):
  """A loss that tells the key and the rows of its first call."""

  def loss(self, params, aux, batch, key, step):
    told = jax.random.uniform(key) + batch["inputs"].sum()
    outputs = {"loss": batch["target"], "mask": batch["valid"]}
    return jnp.where(batch["is_first"][0], told, 0.0), (aux, outputs)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_first_train_step_calls_its_loss_with_these_inputs(parts):
  method, mesh, key = Keys(), sharding.make_mesh(), jax.random.key(0)
  optimizer = optax.sgd(0.0)
  current = state.create(method, optimizer, key, mesh)
  step = state.make_train_step(method, optimizer, key, mesh, accumulate_steps=parts)
  batch = tiny.batch(0) | {"is_first": jnp.arange(8) % parts == 0}
  found = float(step(current, sharding.shard_batch(mesh, batch))[1]) * parts
  rows, first_key = state.first_inputs(batch, key, accumulate_steps=parts)
  expected = jax.random.uniform(first_key) + rows["inputs"].sum()
  assert found == pytest.approx(float(expected), rel=1e-5)
