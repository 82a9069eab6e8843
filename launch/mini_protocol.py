"""The mini protocol: pretraining, then what it is worth, as one table.

  python launch/mini_protocol.py                                  synthetic_actions
  python launch/mini_protocol.py --path=DIR --train_list=FILE --heldout_list=FILE
  ... --groups='/([a-z]+)_'                               leaving out one person each
  ... --pretrained=runs/mini_protocol/synthetic_actions   of that table's pretrainings

Every row pretrains on the training videos without their labels, measures the encoder
by retrieval and a linear classifier on its features, and fine-tunes it; 'scratch' is
the network of the small recipes at random initialisation. The last rows are of MoSI's
own, on clips of twice as many pixels a side. With
--groups (see eval.groups of configs/evaluate.py) features are compared across groups,
of all videos; fine-tuning has the split of the lists, since a training for each group
would take too long. Of a folder, what a still picture and the optical flow tell by
themselves stands below (tests/benchmarks/motion_baselines.py). Small networks, minutes
per run on two CPU cores; the budgets are those of the config files, and so is what
MoDist sees of a folder: frame differences, which need no preparation.
Runs that are finished are not run again, and others resume, so the command may be
interrupted and repeated; after a change of a recipe give another --root.
"""

import hashlib
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import attended
from absl import app, flags

_PATH = flags.DEFINE_string("path", "", "Folder of videos with a folder per class.")
_TRAIN_LIST = flags.DEFINE_string("train_list", "", "Lines `path label`.")
_HELDOUT_LIST = flags.DEFINE_string("heldout_list", "", "Lines `path label`.")
_GROUPS = flags.DEFINE_string("groups", "", "Regular expression; see above.")
_PRETRAINED = flags.DEFINE_string("pretrained", "", "Folder of an earlier table.")
_TUNING = flags.DEFINE_string(
  "tuning", "", "Length of a fine-tuning, as '160 steps' of few videos."
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of every row.")
_ROWS = flags.DEFINE_list("rows", [], "Some of the rows; all without it.")
_ROOT = flags.DEFINE_string("root", "runs/mini_protocol", "Folder of the runs.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the commands.")


class Row(NamedTuple):
  """Pretraining by a config file, '' for none, and the network that is fine-tuned."""

  config: str = ""
  overrides: tuple[str, ...] = ()
  network: str = "r3d_10"


UNMASKED = ("--config.method.mask_ratio=(1.0,1.0)",)
# L_v alone needs the paper's augmentation, without which it is solved by colour.
RGB_ONLY = (
  "--config.method.loss_visual=1",
  "--config.method.loss_motion=0",
  "--config.method.loss_cross=0",
  "--config.method.area=(0.4,1.0)",
  "--config.method.jitter=0.8",
  "--config.method.grayscale=0.2",
  "--config.method.blur=0.5",
  "--config.data.synchronised=False",
)
ROWS = {
  "scratch": Row(),
  "mosi xy": Row("mosi"),
  "mosi x": Row("mosi", ("--config.method.axes=x",)),
  "mosi y": Row("mosi", ("--config.method.axes=y",)),
  "mosi xy unmasked": Row("mosi", UNMASKED),
  "mosi x unmasked": Row("mosi", ("--config.method.axes=x", *UNMASKED)),
  "mosi y unmasked": Row("mosi", ("--config.method.axes=y", *UNMASKED)),
  "modist": Row("modist"),
  "modist rgb only": Row("modist", RGB_ONLY),
  "mas": Row("mas"),
  "mas motion": Row("mas", ("--config.method.appearance=False",)),
  "mas appearance": Row("mas", ("--config.method.motion=False",)),
  "joint": Row("joint"),
  # On the network of MoSI's paper, with clips of 64 pixels in place of 32.
  "scratch r2d3d_18": Row(network="r2d3d_18"),
  "mosi xy r2d3d_18": Row("mosi", network="r2d3d_18"),
  "joint r2d3d_18": Row("joint", network="r2d3d_18"),
}
SCORES = {
  "pretext_accuracy": "pretext accuracy",
  "retrieval_r1": "retrieval R@1",
  "knn_top1": "k-NN, k=200",
  "linear_top1": "linear on features",
  "top1": "fine-tuned",
}
FEATURES = ("retrieval_r1", "knn_top1", "linear_top1")
BASELINES = {"still": "still picture", "flow": "optical flow"}
HERE = pathlib.Path(__file__).parents[1]


def main(argv):
  del argv
  unknown = sorted({*_ROWS.value} - {*ROWS})
  if unknown:
    sys.exit(f"unknown rows {unknown}; known: {', '.join(ROWS)}")
  if _GROUPS.value and not _PATH.value:
    sys.exit("--groups are of the folder that --path names")
  root = pathlib.Path(_ROOT.value).expanduser() / _data_name()
  rows = {name: ROWS[name] for name in _ROWS.value or ROWS}
  _check_pretrained(rows)
  if _PATH.value:
    _measure_baselines(root)
  jobs = [(seed, name) for seed in range(_SEEDS.value) for name in rows]
  began, done = time.monotonic(), 0
  for number, (seed, name) in enumerate(jobs):
    for workdir, command in commands(root, name, rows[name], seed):
      if _DRY_RUN.value:
        print(shlex.join(command))
      elif not _finished(workdir):
        left = _left(time.monotonic() - began, done, len(jobs) - number)
        print(f"[{number + 1}/{len(jobs)}{left}] {workdir}", flush=True)
        _run(command, workdir)
        done += workdir.name.endswith("finetune")
    if not _DRY_RUN.value:
      write_table(root, rows)


def commands(root, name, row, seed):
  """Yields (workdir, command) of the runs of a row, in order."""
  folder = root / name.replace(" ", "-")
  tuned = folder / f"seed{seed}-finetune"
  network = f",network={row.network}"
  length = [f"--config.train.duration={_TUNING.value}"] if _TUNING.value else []
  if not row.config:
    yield tuned, [*_command("finetune", tuned, seed, f"{network},scratch"), *length]
    return
  workdir, whole = _pretraining(root, name, seed), "--config.eval.max_videos=0"
  start = f"--config.init_from={workdir}"
  if not _PRETRAINED.value:
    command = _command(row.config, workdir, seed, network)
    yield workdir, [*command, whole, *row.overrides]
  if _PRETRAINED.value or _GROUPS.value:
    measured = folder / f"seed{seed}-evaluate"
    groups = [f"--config.eval.groups={_GROUPS.value}"] if _GROUPS.value else []
    yield measured, [*_command("evaluate", measured, seed), start, whole, *groups]
  yield tuned, [*_command("finetune", tuned, seed, network), start, *length]


def write_table(root, rows):
  """Writes table.md and scores.json: mean and standard deviation over the seeds."""
  scores = {name: _scores(root, name) for name in rows}
  scratches = {row.network: name for name, row in ROWS.items() if not row.config}
  for name, row in rows.items():  # random initialisation, of the first row with it
    scratch = scratches[row.network]
    for key, values in scores[name].pop("random").items():
      known = scores.setdefault(scratch, {}).setdefault(key, {})
      known |= {seed: value for seed, value in values.items() if seed not in known}
  scores |= _baseline_scores(root)
  lines = ["| pretraining | " + " | ".join(SCORES.values()) + " | seeds |"]
  lines.append("|---" * (len(SCORES) + 2) + "|")
  for name, found in scores.items():
    seeds = max((len(values) for values in found.values()), default=0)
    cells = [_cell(list(found.get(key, {}).values()), seeds) for key in SCORES]
    lines.append("| " + " | ".join([name, *cells, str(seeds)]) + " |")
  root.mkdir(parents=True, exist_ok=True)
  (root / "table.md").write_text("\n".join(lines) + "\n")
  (root / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
  print("\n".join(lines), flush=True)


def _data_name():
  """Name of the results' folder: the data, and a digest of all that changes scores."""
  name, given = "synthetic_actions", []
  if _PATH.value:
    path = pathlib.Path(_PATH.value).resolve()
    name, given = path.name, [str(path), _TRAIN_LIST.value, _HELDOUT_LIST.value]
  after = _PRETRAINED.value and pathlib.Path(_PRETRAINED.value).expanduser().resolve()
  others = {"": _GROUPS.value, "tuning=": _TUNING.value, "pretrained=": after}
  given += [f"{word}{value}" for word, value in others.items() if value]
  if given:
    name += "-" + hashlib.sha256("\n".join(given).encode()).hexdigest()[:6]
  return f"{name}-after-{after.name}" if after else name


def _pretraining(root, name, seed):
  """Folder of the pretraining of a row."""
  root = pathlib.Path(_PRETRAINED.value).expanduser() if _PRETRAINED.value else root
  return root / name.replace(" ", "-") / f"seed{seed}-pretrain"


def _check_pretrained(rows):
  names = [name for name in rows if rows[name].config and _PRETRAINED.value]
  needed = [
    _pretraining("", name, seed) for name in names for seed in range(_SEEDS.value)
  ]
  lost = [str(workdir) for workdir in needed if not attended.finished(workdir)]
  if lost and not _DRY_RUN.value:
    sys.exit(
      f"{len(lost)} of {len(needed)} pretrainings are not finished: {lost[0]} ...; run "
      "their table first, or ask for others by --rows and --seeds"
    )


def _measure_baselines(root):
  """Writes motion_baselines.json, once."""
  script = HERE / "tests" / "benchmarks" / "motion_baselines.py"
  command = [sys.executable, os.path.relpath(script), _PATH.value]
  lists = {"train_list": _TRAIN_LIST.value, "heldout_list": _HELDOUT_LIST.value}
  for name, value in {"groups": _GROUPS.value, **lists}.items():
    command += [f"--{name}={value}"] if value else []
  command += [f"--out={root / 'motion_baselines.json'}"]
  if _DRY_RUN.value:
    print(shlex.join(command))
  elif not (root / "motion_baselines.json").exists():
    _run(command, root)


def _baseline_scores(root):
  """{row: {score: {seed: value}}}; nothing is drawn, so there is one 'seed'."""
  path = root / "motion_baselines.json"
  values = json.loads(path.read_text()) if path.exists() else {}
  ends = {"retrieval_r1": "r1", "knn_top1": "knn"}
  suffix = "_groups" * bool(_GROUPS.value)
  return {
    text: {key: {"": values[f"{name}_{end}{suffix}"]} for key, end in ends.items()}
    for name, text in BASELINES.items()
    if values
  }


def _command(config, workdir, seed, more=""):
  data = "folder" if _PATH.value else "synthetic_actions"
  word = "run" if config == "evaluate" else data + more
  command = [sys.executable, "-m", "motion_jax.main", f"--workdir={workdir}"]
  file = HERE / "configs" / f"{config}.py"
  command += [f"--config={os.path.relpath(file)}:{word}", f"--config.seed={seed}"]
  if _PATH.value:
    command += [
      f"--config.data.path={_PATH.value}",
      f"--config.data.train_list={_TRAIN_LIST.value}",
      f"--config.data.heldout_list={_HELDOUT_LIST.value}",
    ]
  elif config == "evaluate":
    command += [f"--config.data.name={data}"]
  return command


def _run(command, workdir):
  workdir.mkdir(parents=True, exist_ok=True)
  with open(workdir / "log.txt", "a") as log:
    code = attended.run(command, stdout=log, stderr=subprocess.STDOUT)
  if code:
    sys.exit(f"{shlex.join(command)}\nended with {code}; see {workdir / 'log.txt'}")


def _finished(workdir):
  return attended.finished(workdir) or (workdir / "evaluation.json").exists()


def _scores(root, name):
  """{score: {seed: value}} of the finished runs of a row."""
  found = {key: {} for key in SCORES}
  found["random"] = {key: {} for key in FEATURES}
  folder, elsewhere = root / name.replace(" ", "-"), _PRETRAINED.value or _GROUPS.value
  for seed in range(_SEEDS.value):
    pretrained = _pretraining(root, name, seed) / "summary.json"
    for path, keys in (
      (pretrained, ("pretext_accuracy", *(() if elsewhere else FEATURES))),
      (folder / f"seed{seed}-evaluate" / "evaluation.json", FEATURES),
      (folder / f"seed{seed}-finetune" / "summary.json", ("top1",)),
    ):
      summary = json.loads(path.read_text()) if path.exists() else {}
      for key in keys:
        for whole in (f"eval/{key}", f"eval/mosi_{key}"):  # 'joint' has its MoSI's
          if whole in summary:
            found[key][seed] = summary[whole]
        if f"eval/random_init/{key}" in summary:
          found["random"][key][seed] = summary[f"eval/random_init/{key}"]
  return found


def _left(seconds, done, remaining):
  """', 40 min left' from the time that `done` rows took; '' before the first."""
  return f", {seconds / done * remaining / 60:.0f} min left" if done else ""


def _cell(values, seeds):
  """Mean and standard deviation; how many values, if fewer than the row has seeds."""
  if not values:
    return "-"
  text = f"{100 * statistics.mean(values):.1f}"
  if len(values) > 1:
    text += f" ± {100 * statistics.stdev(values):.1f}"
  return text + (f" ({len(values)})" if len(values) < seeds else "")


if __name__ == "__main__":
  try:
    app.run(main)
  except KeyboardInterrupt:
    sys.exit("stopped; the same command goes on from here")
