"""MoDist's smallest recipe, from the data to the encoder."""

import json

import numpy as np
import pytest
import small_modist
from test_config import CONFIGS, load

from motion_jax import load_encoder
from motion_jax.train import train


@pytest.mark.slow
def test_a_run_in_parts_of_batches_leaves_an_encoder_figures_and_metrics(
  tmp_path, monkeypatch
):
  small_modist.use_tiny_networks(monkeypatch.setattr)
  config = load(CONFIGS / "modist.py").get_config("smoke")
  config.train.accumulate_steps = 2
  train(config, tmp_path)
  assert load_encoder(tmp_path)(np.zeros((2, 4, 32, 32, 3), np.uint8)).shape == (2, 16)
  assert (tmp_path / "figures" / "pretext.png").exists()
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert {"eval/pretext_accuracy", "eval/retrieval_r1"} <= summary.keys()
  assert 0 < summary["train/queue_fill"] <= 1
