"""Fills the table of docs/compiled.md: every paper recipe, compiled for many devices.

  python tests/benchmarks/compiled_table.py --topologies=v5e:4x4 --recipes=mosi
  python tests/benchmarks/compiled_table.py --list

Compiles what docs/compiled.jsonl has no row of, a minute or more each, and writes the
row and the table as soon as it is done: it may be interrupted at any time. `--again`
compiles rows anew. TPUs take an environment with `.[tpu]`, GPUs one with `.[cuda13]`.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
ROWS, PAGE = ROOT / "docs" / "compiled.jsonl", ROOT / "docs" / "compiled.md"
TOPOLOGIES = (
  *("v5e:4x4", "v5e:8x8", "v5e:16x16", "h100:8"),
  *("v6e:4x4", "v4:2x2x4", "v5p:2x2x4"),
)
RECIPES = (  # the papers' trainings, those of most interest first
  "mosi.py:hmdb51",
  "modist.py:kinetics400",
  "mas.py:ucf101",
  "mosi.py:ucf101,network=r2plus1d_10",
  "mosi.py:kinetics400",
  "modist.py:kinetics400,network=r3d_18",
  "finetune.py:ucf101",
  "finetune.py:ucf101,recipe=modist",
  "finetune.py:ucf101,recipe=mas",
  "finetune.py:ucf101,network=r2plus1d_10",
  "finetune.py:something_something_v2",
  "detect.py:ava",
  "supervised.py:kinetics400",
  "mas.py:kinetics400",
  "joint.py:kinetics400",
  "mosi.py:imagenet",
)
HEAD = (
  *("recipe", "devices", "batch (of a device)", "GiB of a device", "TFLOP of a device"),
  *("estimated step, ms", "of the peak", "estimated days", "MB sent"),
)
MARKS = "<!-- table -->\n", "<!-- end of table -->\n"


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--topologies", default=",".join(TOPOLOGIES))
  parser.add_argument("--recipes", default="", help="regular expression")
  parser.add_argument("--again", action="store_true")
  parser.add_argument("--list", action="store_true", help="tell what there is to do")
  options = parser.parse_args()
  rows = stored()
  for recipe in RECIPES:
    for topology in options.topologies.split(","):
      if not re.search(options.recipes, recipe):
        continue
      if (recipe, topology) in rows and not options.again:
        continue
      print(recipe, topology, flush=True)
      if not options.list and (row := compiled(recipe, topology)):
        keep(stored() | {(recipe, topology): row})  # others may fill it meanwhile
  PAGE.write_text(with_table(PAGE.read_text(), ordered(stored())))


def stored():
  """{(recipe, topology): row} of what is done."""
  lines = ROWS.read_text().splitlines() if ROWS.exists() else []
  found = map(json.loads, lines)
  return {(row["recipe"], row["topology"].partition(": ")[0]): row for row in found}


def keep(rows):
  """Writes all rows, in the order of the table, and the page."""
  rows = ordered(rows)
  ROWS.write_text("".join(f"{json.dumps(row)}\n" for row in rows.values()))
  PAGE.write_text(with_table(PAGE.read_text(), rows))


def ordered(rows):
  def place(key):
    return [
      known.index(name) if name in known else len(known)
      for name, known in zip(key, (RECIPES, TOPOLOGIES), strict=True)
    ]

  return {key: rows[key] for key in sorted(rows, key=place)}


def compiled(recipe, topology):
  """The row of a recipe, None if it was not to be had."""
  result = subprocess.run(
    [
      *(sys.executable, "-m", "motion_jax.benchmark"),
      f"--config=configs/{recipe}",
      f"--topology={topology}",
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  if result.returncode:
    return None
  row = json.loads(result.stdout)
  row.pop("operations", None)
  return {"recipe": recipe, **row}


def with_table(page, rows):
  before, rest = page.split(MARKS[0])
  _, after = rest.split(MARKS[1])
  lines = [_line(HEAD), _line(["---"] * len(HEAD))]
  lines += [_line(cells(row)) for row in rows.values()]
  return before + MARKS[0] + "".join(lines) + MARKS[1] + after


def cells(row):
  """What the table tells of a row; '' is what the compiler does not tell."""
  memory, estimate = row["memory_gibibytes"], row.get("compilers_estimate", {})
  needed = f"{memory['needed']:.1f}" if memory["needed"] else "more"
  days = estimate.get("days")
  return (
    f"`{row['recipe']}`",
    row["topology"].partition(": ")[0],
    f"{row['batch_size']} ({row['rows_per_device']:.4g})",
    f"{needed} of {memory['capacity']:.1f}"
    + ("" if row["fits"] else ", **does not fit**"),
    f"{row['teraflops_per_step']:.2f}" if row["fits"] else "",
    f"{1e3 * estimate['step_seconds']:.0f}" if estimate else "",
    f"{100 * estimate['share_of_peak']:.0f} %" if estimate else "",
    f"{days:.2g}" if days else "",
    f"{row['sent_megabytes']:.0f}" if row["fits"] else "",
  )


def _line(texts):
  return f"| {' | '.join(texts)} |\n"


if __name__ == "__main__":
  main()
