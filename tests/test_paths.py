"""Paths of object storage are refused, not taken for a local folder 'gs:'."""

import pathlib

import pytest
import test_main
from test_main import command_line  # noqa: F401

from motion_jax import export, load_encoder, prepare
from motion_jax.config import UserError, local_path
from motion_jax.data import open_source
from motion_jax.flow_sets import prepare_flow

URL = "gs://bucket/folder"
CALLS = {
  "a run": lambda: load_encoder(URL),
  "as a Path": lambda: load_encoder(pathlib.Path(URL)),
  "a folder of videos": lambda: open_source(URL),
  "lists": lambda: open_source(".", list_file="s3://bucket/train.txt"),
  "data_dir": lambda: open_source("ucf101", data_dir=URL),
  "embedded data": lambda: open_source("synthetic_actions", data_dir=URL),
  "an exported file": lambda: export.export("run", "s3://bucket/encoder.pth"),
  "prepare --source": lambda: prepare.prepare(
    "video_folder", source=URL, folder_name="a"
  ),
  "prepare --data_dir": lambda: prepare.prepare("ucf101", source=".", data_dir=URL),
  "flow of a folder": lambda: prepare_flow.prepare_flow(URL, method="variational"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_bucket_is_refused_by_every_command(call, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=r"bucket/.* is not on a disk.*mount"):
    call()
  assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
  "flag",
  [
    "--workdir=gs://bucket/run",
    "--config.data.data_dir=s3://bucket/data",
    "--config.data.path=gs://bucket/videos",
  ],
)
def test_a_training_makes_no_folder_of_a_bucket(flag, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  is_folder = "data.path" in flag
  name = ("--config.data.name=folder",) if is_folder else ()
  own = () if "workdir" in flag else (f"--workdir={tmp_path}/run",)
  code, text = test_main.run(capsys, flag, *name, *own)
  assert code == 2
  assert "is not on a disk" in text and text.count("error:") == 1
  assert [path.name for path in tmp_path.iterdir()] == ["run"] * len(own)


def test_other_paths_stay_as_they_are(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  assert local_path("~/videos") == pathlib.Path("/home/me/videos")
  for name in ("runs/a", "/data/gs:1", "C:/videos", "."):
    assert local_path(name) == pathlib.Path(name)
