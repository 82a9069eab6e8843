"""Pictures of the features of videos: clusters, a map of all, nearest neighbours."""

import logging
import pathlib

import numpy as np

from motion_jax.data.clips import Views
from motion_jax.data.sources import Source
from motion_jax.downstream.features import Features
from motion_jax.evaluation import clusters
from motion_jax.evaluation.retrieval import nearest
from motion_jax.visualize.canvas import BAD, GOOD
from motion_jax.visualize.clips import save_gif
from motion_jax.visualize.grids import save_picture_grid
from motion_jax.visualize.scatter import save_scatter

logger = logging.getLogger("motion_jax")

NEIGHBOURS = 5
_GAP = 4


class FeaturePictures:
  """Draws the features of a source.

  Args:
    folder: for the files.
    source: the videos.
    found: their features.
    views: the sampler of the clip that examples are shown by.
    seed: of k-means and t-SNE.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    source: Source,
    found: Features,
    views: Views,
    *,
    seed: int = 0,
  ):
    self._folder, self._source, self._found = folder, source, found
    self._views, self._seed = views, seed

  def save_clusters(self, count: int, examples: int) -> None:
    """Writes clusters.png, clusters.gif and tsne.png.

    Args:
      count: number of clusters.
      examples: videos of each that are shown, the nearest to its centre.
    """
    found = clusters.find_clusters(self._found.features, count, seed=self._seed)
    members = [found.members(number)[:examples] for number in range(len(found))]
    clips = [[self._clip(row) for row in rows] for rows in members]
    titles = []
    for number in range(len(found)):
      inside = found.labels == number
      size = int(inside.sum())
      lines = [f"cluster {number}: {size} video{'s' if size > 1 else ''}"]
      titles.append(lines + self._commonest(self._found.labels[inside]))
    save_picture_grid(
      self._folder / "clusters.png",
      [[clip[len(clip) // 2] for clip in row] for row in clips],
      titles=titles,
      captions=[[self._name(row) for row in rows] for rows in members],
      headers=["nearest to the centre"],
    )
    save_gif(self._folder / "clusters.gif", _wall(clips, examples))
    self._save_map(found)

  def save_retrieval(self, gallery: Source, found: Features, queries: int) -> None:
    """Writes retrieval.png: videos and the five with the most similar features.

    Args:
      gallery: where neighbours are searched; may be the source itself, then a video is
        no neighbour of its own.
      found: features of the gallery.
      queries: number of rows, evenly spaced over the source.
    """
    is_same = found is self._found
    count = min(NEIGHBOURS + is_same, len(found.features))
    if count <= is_same:
      logger.warning("no retrieval.png: there is only one video")
      return
    rows = spread(len(self._found.labels), queries)
    similarity, index = nearest(self._found.features[rows], found.features, k=count)
    pictures, captions, colors = [], [], []
    for line, row in enumerate(rows):
      others = index[line] != row if is_same else np.ones(count, bool)
      near, scores = (x[line][others][:NEIGHBOURS] for x in (index, similarity))
      clips = [self._clip(row), *(self._clip(i, gallery, found) for i in near)]
      pictures.append([clip[len(clip) // 2] for clip in clips])
      texts = [_what(gallery, found, i) for i in near]
      texts = [f"{text}  {s:.3f}" for text, s in zip(texts, scores, strict=True)]
      captions.append(["", *texts])
      label = self._found.labels[row]
      colors.append([None, *(_verdict(label, found.labels[i]) for i in near)])
    save_picture_grid(
      self._folder / "retrieval.png",
      pictures,
      titles=[[self._name(row), *self._class(row)] for row in rows],
      captions=captions,
      colors=colors,
      headers=["query", *(f"neighbour {i + 1}" for i in range(NEIGHBOURS))],
    )

  def _save_map(self, found: clusters.Clusters) -> None:
    if len(self._found.features) < 4:
      logger.warning("no tsne.png: it needs four videos or more")
      return
    points = clusters.embed(self._found.features, seed=self._seed)
    names = [f"cluster {number}" for number in range(len(found))]
    panels = {"t-SNE of the features, k-means clusters": (found.labels, names)}
    classes, labels = self._source.classes, self._found.labels
    if classes is not None and labels.min() >= 0:
      title = f"the same points, {len(np.unique(labels))} classes"
      panels[title] = (labels, classes)
    save_scatter(self._folder / "tsne.png", points, panels)

  def _clip(self, row, source: Source | None = None, found: Features | None = None):
    """[T, S, S, 3] uint8, the first of a video's views."""
    source, found = source or self._source, found or self._found
    record = source[int(found.positions[row])]
    return self._views(record, np.random.default_rng(0))["video"][0]

  def _name(self, row) -> str:
    return _stem(self._source, self._found, row)

  def _class(self, row) -> list[str]:
    label = self._found.labels[row]
    known = self._source.classes is not None and label >= 0
    return [self._source.classes[label]] if known else []

  def _commonest(self, labels, count=3) -> list[str]:
    """Lines like '12 Archery' of the classes that a cluster has most of."""
    if self._source.classes is None or labels.min() < 0:
      return []
    numbers = np.bincount(labels)
    order = np.argsort(-numbers, kind="stable")[:count]
    return [f"{numbers[i]} {self._source.classes[i]}" for i in order if numbers[i]]


def spread(count: int, wanted: int) -> np.ndarray:
  """At most `wanted` places of `count`: one in each of as many equal parts.

  Its place in the part differs from part to part, so that several classes are seen
  both where videos are sorted by class and where classes alternate.
  """
  part = np.arange(wanted)
  inside = (part + 1) * (5**0.5 - 1) / 2 % 1  # the golden ratio: never periodic
  return np.unique(((part + inside) * count / wanted).astype(int))


def _stem(source, found, row) -> str:
  return pathlib.PurePath(source.id_of(int(found.positions[row]))).stem


def _what(source, found, row) -> str:
  """The class of a video, or its name."""
  label = found.labels[row]
  known = source.classes is not None and label >= 0
  return source.classes[label] if known else _stem(source, found, row)


def _verdict(label, other):
  if label < 0 or other < 0:
    return None
  return GOOD if label == other else BAD


def _wall(clips, columns):
  """Rows of clips as one clip [1, T, H, W, 3], white where a row ends early."""
  length, height, width, _ = clips[0][0].shape
  pitch = height + _GAP, width + _GAP
  shape = (length, len(clips) * pitch[0], columns * pitch[1], 3)
  wall = np.full(shape, 255, np.uint8)
  for line, row in enumerate(clips):
    for column, clip in enumerate(row):
      top, left = line * pitch[0], column * pitch[1]
      wall[:, top : top + height, left : left + width] = clip
  return wall[None]
