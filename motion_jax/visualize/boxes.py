"""Pictures of frames with the boxes of people and the numbers of their actions."""

import os
import pathlib

import cv2
import numpy as np

_COLOUR = (209, 73, 91)
_SMALLEST_SIDE = 224
_GAP = 4


def save_boxes(
  path: str | os.PathLike,
  frames: np.ndarray,
  boxes: np.ndarray,
  person: np.ndarray,
  actions: np.ndarray,
  *,
  mean=0.0,
  std=1.0,
) -> None:
  """Writes a PNG: the frames in rows of three, with boxes and action numbers.

  Args:
    path: file to write.
    frames: [N, H, W, 3] float, in [0, 1] after (frame * std + mean).
    boxes: [N, P, 4], (x1, y1, x2, y2) in pixels.
    person: [N, P] bool, which boxes are drawn.
    actions: [N, P, A] bool; column `number - 1` is the action with that number.
    mean, std: undo the normalisation.
  """
  scale = -(-_SMALLEST_SIDE // min(frames.shape[1:3]))
  values = (frames * np.asarray(std) + np.asarray(mean)).clip(0, 1)
  height, width = (side * scale for side in frames.shape[1:3])
  columns = min(3, len(frames))
  rows = -(-len(frames) // columns)
  canvas = np.full(
    (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8
  )
  for number, value in enumerate(values):
    image = cv2.resize((value * 255).astype(np.uint8), (width, height))
    for box, labels in zip(
      boxes[number][person[number]], actions[number][person[number]], strict=True
    ):
      _draw(image, np.round(box * scale).astype(int), np.flatnonzero(labels) + 1)
    row, column = divmod(number, columns)
    top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
    canvas[top : top + height, left : left + width] = image
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  cv2.imwrite(os.fspath(path), canvas[..., ::-1])


def _draw(image, box, numbers):
  x1, y1, x2, y2 = map(int, box)
  cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), _COLOUR, 2)
  text = " ".join(map(str, numbers))
  font = cv2.FONT_HERSHEY_SIMPLEX
  cv2.putText(image, text, (x1 + 3, y1 + 16), font, 0.5, _COLOUR, 1, cv2.LINE_AA)
