"""Pictures of MoSI's clips: which motion each one has, and which one is found."""

import pathlib

import numpy as np

from motion_jax.visualize import clips as grids
from motion_jax.visualize.style import BAD, GOOD

_MOTION = (
  "Arrows: how the window moves over the picture; what it shows moves the other way. "
  "1 is the fastest, 0.5 half as fast."
)


def save_pretext(
  directory: pathlib.Path, clips, boxes, moves: np.ndarray, *, caption: str, mean, std
) -> None:
  """Writes pretext.png and pretext.gif: the clips of one image, their motion beside.

  Args:
    directory: for the files; is made.
    clips: [P, T, S, S, 3], normalised.
    boxes: [P, 3], (x, y, side) of the part that moves.
    moves: [P, 2], of the window in [-1, 1]; what is seen in it moves against them.
    caption: a line below the clips and what explains their motion.
    mean, std: undo the normalisation.
  """
  directory.mkdir(parents=True, exist_ok=True)
  options = dict(arrows=moves, mean=mean, std=std)
  titles = [f"{label}: {motion_text(*move)}" for label, move in enumerate(moves)]
  grids.save_clip_grid(
    directory / "pretext.png",
    clips,
    titles=titles,
    boxes=boxes,
    caption=f"{_MOTION}\n{caption}",
    **options,
  )
  grids.save_gif(directory / "pretext.gif", clips, **options)


def save_predictions(
  directory: pathlib.Path,
  clips,
  labels,
  found,
  moves: np.ndarray,
  *,
  chance: float | None,
  mean,
  std,
) -> None:
  """Writes predictions.png: clips with their true and the predicted motion.

  Args:
    directory: for the file; is made.
    clips: [P, T, S, S, 3], normalised, one of each motion.
    labels, found: [P, heads] int. Of two heads the motion along x and along y, which
      need not be one of `moves`.
    chance: share that guessing gets, if known.
    moves, mean, std: as in `save_pretext`.
  """
  labels, found = ([*map(tuple, np.asarray(x).tolist())] for x in (labels, found))
  texts = {label: motion_text(*move) for label, move in zip(labels, moves, strict=True)}
  titles = [
    f"{texts[true]}\nfound: {texts.get(guess, 'none of these')}"
    for true, guess in zip(labels, found, strict=True)
  ]
  hits = [true == guess for true, guess in zip(labels, found, strict=True)]
  count = "" if chance is None else f" (guessing: {chance * len(hits):.1g})"
  caption = (
    f"Above the true motion, below it what the network finds: {sum(hits)} of "
    f"{len(hits)} right, in green{count}.\n{_MOTION}"
  )
  options = dict(colors=[GOOD if hit else BAD for hit in hits], mean=mean, std=std)
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / "predictions.png"
  grids.save_clip_grid(
    path, clips, titles=titles, caption=caption, arrows=moves, **options
  )


def step_text(step: int, curriculum_steps: int, ease, mask_ratio) -> str:
  """The step, counted from 1, and how hard a curriculum, if any, makes it."""
  if not curriculum_steps:
    return f"Step {step}."
  low, high, ease = (float(value) for value in (*mask_ratio, ease))
  moving = f"the part that moves is {low:.0%} to {high:.0%} as wide as the frame"
  if low == 1:
    moving = "all of the frame moves, and its colours stay"
  return (
    f"Step {step}, {ease:.0%} of the difficulty that step {curriculum_steps} reaches: "
    f"{moving}."
  )


def motion_text(x: float, y: float) -> str:
  """A motion in words, such as 'right 0.5 up 1'."""
  if not x and not y:
    return "static"
  across = f"{'right' if x > 0 else 'left'} {abs(x):g}" if x else ""
  along = f"{'down' if y > 0 else 'up'} {abs(y):g}" if y else ""
  return " ".join(filter(None, (across, along)))
