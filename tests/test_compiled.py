"""An entry of the compilation cache that is cut short is replaced."""

import sys
import warnings
import zlib

import children
import pytest

from motion_jax.scale import compiled

PROGRAM = """
import sys, warnings
import jax, jax.numpy as jnp
from motion_jax import logs
from motion_jax.commands import command

logs.to_console()
command.use_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3))).sum())
warnings.warn("another warning")
"""


@pytest.mark.parametrize("left", [0, 0.5])
def test_an_entry_cut_short_is_told_of_once_and_replaced(left, tmp_path):
  environment = {**children.environment(1), "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}

  def start():
    result = children.run([sys.executable, "-c", PROGRAM], env=environment)
    assert result.returncode == 0, result.stderr
    return result

  first = start()
  whole = {path: path.read_bytes() for path in tmp_path.glob("*-cache")}
  cut = [path for path in whole if path.name.startswith("jit__lambda")]
  assert len(cut) == 1
  cut[0].write_bytes(whole[cut[0]][: int(left * len(whole[cut[0]]))])
  second, third = start(), start()
  assert first.stdout == second.stdout == third.stdout
  assert second.stderr.count("compiled again, since it was damaged") == 1
  assert "Error reading persistent" not in second.stderr
  assert "another warning" in second.stderr
  assert "damaged" not in third.stderr and "Error reading" not in third.stderr
  for path, contents in whole.items():
    assert abs(len(path.read_bytes()) - len(contents)) < 0.1 * len(contents)


def test_whole_entries_of_the_same_name_stay(tmp_path, monkeypatch):
  monkeypatch.setattr(warnings, "showwarning", lambda *_, **__: None)
  entries = {
    "jit_step-a-cache": zlib.compress(b"program"),
    "jit_step-b-cache": b"\x28\xb5\x2f\xfd compressed by a later Python",
    "jit_step-c-cache": zlib.compress(b"program")[:5],
  }
  for name, content in entries.items():
    (tmp_path / name).write_bytes(content)
  with warnings.catch_warnings():
    compiled.replace_damaged(tmp_path)
    warnings.warn(
      "Error reading persistent compilation cache entry for 'jit_step': x", stacklevel=1
    )
  left = sorted(path.name for path in tmp_path.iterdir())
  assert left == ["jit_step-a-cache", "jit_step-b-cache"]
