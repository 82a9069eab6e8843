"""Video scores from many views: the mean of the softmax over clips and crops."""

import numpy as np

from motion_jax.evaluation.measures.scores import top_accuracy


class VideoScores:
  """Collects the class probabilities of the views of videos, in any order.

  Args:
    videos: number of videos.
    classes: number of classes.
  """

  def __init__(self, videos: int, classes: int):
    self._sums = np.zeros((videos, classes), np.float64)
    self._counts = np.zeros(videos, np.int64)
    self._damaged = np.zeros(videos, bool)

  def add(self, index: np.ndarray, valid: np.ndarray, probabilities: np.ndarray):
    """Takes a batch of views.

    Args:
      index: [B] int, the video of each view; -1 for padding.
      valid: [B] bool; False for padding and for what could not be decoded: no view of
        such a video counts.
      probabilities: [B, classes] softmax scores.
    """
    index, valid = np.asarray(index), np.asarray(valid)
    np.add.at(self._sums, index[valid], np.asarray(probabilities, np.float64)[valid])
    np.add.at(self._counts, index[valid], 1)
    self._damaged[index[~valid & (index >= 0)]] = True

  def probabilities(self) -> np.ndarray:
    """[videos, classes] mean over the views; zero for videos without a valid view."""
    return self._sums / np.maximum(self._counts, 1)[:, None]

  def seen(self) -> np.ndarray:
    """[videos] bool: which videos have views, and only valid ones."""
    return (self._counts > 0) & ~self._damaged

  def accuracy(self, labels: np.ndarray, k: int = 1) -> float:
    """Share of the seen videos whose label is among their k most probable classes.

    Args:
      labels: [videos] int.
      k: number of guesses; with equal scores the lower class comes first.

    Returns:
      In [0, 1].

    Raises:
      ValueError: if no video was seen.
    """
    seen = self.seen()
    if not seen.any():
      raise ValueError("no view of any video could be decoded: there is no accuracy")
    scores = self.probabilities()[seen]
    return top_accuracy(scores, np.asarray(labels)[seen], ks=(k,))[f"top{k}"]
