"""Pictures of MoSI's clips: which motion each one has, and which one is found."""

import pathlib

import numpy as np

from motion_jax.visualize import clips as grids


def save_pretext(
  directory: pathlib.Path, clips, boxes, moves: np.ndarray, *, caption: str, mean, std
) -> None:
  """Writes pretext.png and pretext.gif: the clips of one image, their motion beside.

  Args:
    directory: for the files; is made.
    clips: [P, T, S, S, 3], normalised.
    boxes: [P, 3], (x, y, side) of the part that moves.
    moves: [P, 2], of the window in [-1, 1]; what is seen in it moves against them.
    caption: a line below the clips.
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
    caption=caption,
    **options,
  )
  grids.save_gif(directory / "pretext.gif", clips, **options)


def save_predictions(
  directory: pathlib.Path, clips, labels, found, moves: np.ndarray, *, mean, std
) -> None:
  """Writes predictions.png: clips with their true and the predicted motion.

  Args:
    directory: for the file; is made.
    clips: [P, T, S, S, 3], normalised, one of each motion.
    labels, found: [P, heads] int. Of two heads the motion along x and along y, which
      need not be one of `moves`.
    moves, mean, std: as in `save_pretext`.
  """
  labels, found = ([*map(tuple, np.asarray(x).tolist())] for x in (labels, found))
  texts = {label: motion_text(*move) for label, move in zip(labels, moves, strict=True)}
  titles = [
    f"{texts[true]}\nfound: {texts.get(guess, 'none of these')}"
    for true, guess in zip(labels, found, strict=True)
  ]
  directory.mkdir(parents=True, exist_ok=True)
  path, options = directory / "predictions.png", dict(mean=mean, std=std)
  grids.save_clip_grid(path, clips, titles=titles, arrows=moves, **options)


def step_text(step: int, curriculum_steps: int, ease, mask_ratio) -> str:
  """The step, counted from 1, and how hard a curriculum, if any, makes it."""
  if not curriculum_steps:
    return f"step {step}"
  low, high, ease = (float(value) for value in (*mask_ratio, ease))
  return (
    f"step {step} of a curriculum over {curriculum_steps}: difficulty {ease:.0%}, "
    f"mask {low:.2f} to {high:.2f}"
  )


def motion_text(x: float, y: float) -> str:
  """A motion in words, such as 'right 0.5 up 1'."""
  if not x and not y:
    return "static"
  across = f"{'right' if x > 0 else 'left'} {abs(x):g}" if x else ""
  along = f"{'down' if y > 0 else 'up'} {abs(y):g}" if y else ""
  return " ".join(filter(None, (across, along)))
