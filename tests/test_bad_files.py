"""Several processes keep one account of records that cannot be decoded."""

import shutil
import threading
import time

import jax
import numpy as np
import pytest
from failing_storage import failing
from test_hosts import assert_same_metrics, config, finish, start
from tiny_main import Pictures

from motion_jax import methods, train
from motion_jax.config import UserError
from motion_jax.scale import hosts
from motion_jax.training.bad_files import BadFiles


class _Names:
  name = "names"

  def __init__(self, count):
    self._count = count

  def __len__(self):
    return self._count

  def id_of(self, index):
    return f"file{index}"


@pytest.fixture
def two(monkeypatch):
  """Calls a function of a process number in two threads, as in two processes."""
  own, meeting = threading.local(), threading.Barrier(2, timeout=20)
  told = [None, None]

  def everyones(value):
    told[own.index] = value
    meeting.wait()
    found = list(told)
    meeting.wait()
    return found

  monkeypatch.setattr(hosts, "everyones", everyones)
  monkeypatch.setattr(jax, "process_index", lambda: own.index)

  def call(function):
    results = [None, None]

    def run(index):
      own.index = index
      try:
        results[index] = function(index)
      except UserError as error:
        results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    return results

  return call


def meet(bad_files, good=(), bad=()):
  index = np.array([*good, *bad, -1])
  valid = np.arange(len(index)) < len(good)
  bad_files.update(
    {"index": index, "valid": valid, "reason": np.array([b"x"] * len(index))}
  )


def lines(path):
  return path.read_text().splitlines()


def test_a_record_is_bad_until_the_process_that_found_it_decodes_it(two, tmp_path):
  path = tmp_path / "bad_files.txt"
  path.write_text("other\ty\nfile1\tearlier\n")
  kept = two(lambda process: BadFiles(_Names(100), path, 0.05))

  def told(*met):
    def one(process):
      meet(kept[process], *met[process])
      kept[process].settle()
      return len(kept[process])

    return two(one)

  assert told(([2], [3]), ([3], [4, 5])) == [4, 4]
  assert lines(path)[0] == "other\ty" and len(lines(path)) == 5
  assert "file4\tx (process 1)" in lines(path) and "file1\tearlier" in lines(path)
  assert told(([4], []), ([], [3])) == [4, 4]  # process 1 cannot read its copy of 4
  assert told(([], []), ([4], [])) == [3, 3]
  assert told(([], []), ([1, 3], [])) == [2, 2]  # what an earlier start has found
  assert lines(path) == ["other\ty", "file3\tx (process 0)", "file5\tx (process 1)"]
  assert told(([3], []), ([5], [])) == [0, 0]
  assert lines(path) == ["other\ty"]


def test_the_share_is_that_of_all_processes_together(two, tmp_path, caplog):
  kept = two(lambda process: BadFiles(_Names(100), tmp_path / "bad_files.txt", 0.05))

  def stopped(*bad):
    def one(process):
      meet(kept[process], [], bad[process])
      kept[process].settle()

    return two(one)

  assert stopped([0, 1, 2], [2, 3, 4]) == [None, None]
  first, second = stopped([], [5])
  assert str(first) == str(second)
  assert "6 of the 100" in str(first) and "file5: x (process 1)" in str(first)
  assert sum("cannot decode file2" in r.getMessage() for r in caplog.records) == 2
  assert sum("cannot decode file5" in r.getMessage() for r in caplog.records) == 1


def copied(pictures, folder):
  shutil.copytree(pictures, folder)
  return folder, [[], [f"--config.data.path={folder}"]]


@pytest.mark.slow
def test_undecodable_files_on_one_of_two_hosts_stop_both_alike(pictures, tmp_path):
  copy, overrides = copied(pictures, tmp_path / "copy")
  damaged = sorted(copy.iterdir())[::5]  # a fifth
  for path in damaged:
    path.write_bytes(b"no picture")
  workdir = tmp_path / "run"
  with start(pictures, workdir, *overrides, devices=1) as processes:
    codes, texts = finish(processes)
  assert codes == [2, 2], texts
  errors = [text[text.index("error: ") :] for text in texts]
  assert errors[0] == errors[1].replace(str(copy), str(pictures))
  assert "(process 1). They are listed in" in errors[0]
  names = {line.partition("\t")[0] for line in lines(workdir / "bad_files.txt")}
  assert len(names) >= 2 and names <= {path.name for path in damaged}
  assert all(texts[1].count(f"cannot decode {name}:") == 1 for name in names)
  assert "cannot decode" not in texts[0].partition("error: ")[0]


@pytest.mark.long  # half a minute until the other one is sure
def test_storage_that_does_not_come_back_ends_a_host_with_75(pictures, tmp_path):
  copy, overrides = copied(pictures, tmp_path / "copy")
  seconds = {"STORAGE_SECONDS": "3"}
  with (
    failing(*copy.iterdir()),
    start(
      pictures, tmp_path / "run", *overrides, devices=1, environment=seconds
    ) as two,
  ):
    codes, texts = finish(two, timeout=300)
  assert codes[1] == 75 and codes[0] not in (0, 2), texts
  assert "cannot be read: Input/output error, for 3 s" in texts[1]
  assert not (tmp_path / "run" / "bad_files.txt").exists()


@pytest.mark.long
def test_storage_of_a_host_that_fails_for_seconds_changes_nothing(
  pictures, tmp_path, monkeypatch
):
  monkeypatch.setitem(methods.METHODS, "mosi", Pictures)
  train.train(config(pictures), tmp_path / "straight")
  copy, overrides = copied(pictures, tmp_path / "copy")
  with (
    failing(*copy.iterdir()) as mend,
    start(pictures, tmp_path / "run", *overrides, devices=1) as processes,
  ):
    told = next(line for line in processes[1].stderr if "cannot read" in line)
    time.sleep(5)
    mend()
    codes, texts = finish(processes)
  assert codes == [0, 0], (told, texts)
  assert "can be read again" in texts[1]
  assert not (tmp_path / "run" / "bad_files.txt").exists()
  assert_same_metrics(tmp_path / "run", tmp_path / "straight")
