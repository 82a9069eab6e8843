"""Which classes a classifier takes for which others."""

import csv
import os

import numpy as np


def read_predictions(
  path: str | os.PathLike,
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
  """Reads the `predictions.tsv` of a run.

  Returns:
    classes: names in alphabetical order, those that occur.
    labels: int [N], the true class of every video.
    predicted: int [N].

  Raises:
    ValueError: if the file has other columns, or no rows.
  """
  with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
    rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
  if not rows or not {"class", "predicted"} <= rows[0].keys():
    raise ValueError(
      f"{path} must have the columns class and predicted, and a row per video"
    )
  classes = tuple(sorted({row[key] for row in rows for key in ("class", "predicted")}))
  number = {name: index for index, name in enumerate(classes)}
  labels, predicted = (
    np.asarray([number[row[key]] for row in rows]) for key in ("class", "predicted")
  )
  return classes, labels, predicted


def confusion_matrix(
  labels: np.ndarray, predicted: np.ndarray, classes: int
) -> np.ndarray:
  """Counts videos: int [classes, classes], true class by row, predicted by column."""
  matrix = np.zeros((classes, classes), int)
  np.add.at(matrix, (np.asarray(labels), np.asarray(predicted)), 1)
  return matrix


def most_confused(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
  """The most frequent mistakes.

  Args:
    matrix: from `confusion_matrix`.
    count: how many at most.

  Returns:
    (true class, predicted class, videos), the most frequent first.
  """
  wrong = np.array(matrix)
  np.fill_diagonal(wrong, 0)
  order = np.argsort(-wrong, axis=None, kind="stable")[:count]
  places = (np.unravel_index(place, wrong.shape) for place in order)
  return [(int(a), int(b), int(wrong[a, b])) for a, b in places if wrong[a, b]]
