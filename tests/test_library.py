"""Imported, the package leaves the program that imports it as it was."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT

from motion_jax.data.worker import serve_parent

# What the whole process shares, before and after our library has decoded an image.
LIBRARY = """
import logging, os, signal, sys
import absl.flags, cv2, jax
import tensorflow_datasets as tfds
tfds.core

def state():
  names = ("motion_jax", "jax")
  return (
    cv2.getNumThreads(),
    cv2.utils.logging.getLogLevel(),
    [signal.getsignal(number) for number in range(1, 32)],
    [[*map(str, logging.getLogger(name).handlers)] for name in names],
    dict(os.environ),
    dict(jax.config.values),
    absl.flags.FLAGS.is_parsed(),
  )

cv2.setNumThreads(2)
before = state()
import motion_jax
motion_jax.load_encoder, motion_jax.build_model, motion_jax.ops
source = motion_jax.data.open_source(sys.argv[1], split="all")
from motion_jax.data import pipeline
from motion_jax.data.evaluation_batches import evaluation_batches
from motion_jax.data.clips import SourceFrame
options = dict(batch_size=1, seed=0, threads=2)
(batch,) = evaluation_batches(source, SourceFrame(16, (16, 20)), **options)
assert batch["valid"].all()
stream = pipeline.make_pipeline(source, SourceFrame(16, (16, 20)), **options)
next(iter(stream))
assert state() == before, (state(), before)
"""
# What a program finds that `command.run` starts.
COMMAND = """
import sys
import cv2
from motion_jax.commands import command
found = []
look = lambda: found.append((cv2.getNumThreads(), cv2.utils.logging.getLogLevel()))
assert command.run(look, ["test"]) == 0
assert found == [(1, cv2.utils.logging.LOG_LEVEL_SILENT)], found
"""


@pytest.mark.parametrize("code", [LIBRARY, COMMAND], ids=["library", "command"])
def test_only_our_commands_change_what_the_process_shares(tmp_path, code):
  cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 24, 3), np.uint8))
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  words = [sys.executable, "-c", code, str(tmp_path)]
  found = subprocess.run(words, env=environment, capture_output=True, text=True)
  assert found.returncode == 0, found.stderr


def test_worker_processes_have_one_thread_of_opencv_each():
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, context, serve_parent) as pool:
    assert pool.submit(cv2.getNumThreads).result() == 1
