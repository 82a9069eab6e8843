"""Pictures of the features of videos: clusters, a map of all, nearest neighbours."""

import dataclasses
import logging
import pathlib

import numpy as np

from motion_jax.data.clips import Views
from motion_jax.data.sources import Source
from motion_jax.evaluation.features import Features
from motion_jax.evaluation.measures import clusters
from motion_jax.evaluation.measures.retrieval import nearest
from motion_jax.visualize.clips import save_gif
from motion_jax.visualize.grids import save_picture_grid
from motion_jax.visualize.scatter import save_scatter
from motion_jax.visualize.style import BAD, GOOD

logger = logging.getLogger("motion_jax")

NEIGHBOURS = 5
_GAP = 4


@dataclasses.dataclass(frozen=True)
class Videos:
  """Videos with features; rows are those of the features.

  Attributes:
    source: where they come from.
    found: their features.
    views: the sampler of the clip that a video is shown by.
  """

  source: Source
  found: Features
  views: Views

  def clip(self, row) -> np.ndarray:
    """[T, S, S, 3] uint8, the first of a video's views."""
    record = self.source[int(self.found.positions[row])]
    return self.views(record, np.random.default_rng(0))["video"][0]

  def name(self, row) -> str:
    position = int(self.found.positions[row])
    return pathlib.PurePath(self.source.id_of(position)).stem

  def class_of(self, row) -> list[str]:
    """The name of its class, if it is known."""
    label, classes = self.found.labels[row], self.source.classes
    return [classes[label]] if classes is not None and label >= 0 else []


def save_clusters(
  folder: pathlib.Path, videos: Videos, count: int, examples: int, *, seed: int
) -> None:
  """Writes clusters.png, clusters.gif and tsne.png.

  Args:
    folder: for the files.
    videos: what is shown.
    count: number of clusters.
    examples: videos of each that are shown, the nearest to its centre.
    seed: of k-means and t-SNE.
  """
  labels, classes = videos.found.labels, videos.source.classes
  is_labelled = classes is not None and labels.min() >= 0
  groups = clusters.find_clusters(videos.found.features, count, seed=seed)
  members = [groups.members(number)[:examples] for number in range(len(groups))]
  clips = [[videos.clip(row) for row in rows] for rows in members]
  titles = []
  for number in range(len(groups)):
    inside = labels[groups.labels == number]
    size = f"{len(inside)} video{'s' if len(inside) > 1 else ''}"
    commonest = _commonest(inside, classes) if is_labelled else []
    titles.append([f"cluster {number}: {size}", *commonest])
  save_picture_grid(
    folder / "clusters.png",
    [[clip[len(clip) // 2] for clip in row] for row in clips],
    titles=titles,
    captions=[[videos.name(row) for row in rows] for rows in members],
    headers=["nearest to the centre"],
  )
  save_gif(folder / "clusters.gif", _wall(clips, examples))
  if len(labels) < 4:
    logger.warning("no tsne.png: it needs four videos or more")
    return
  names = [f"cluster {number}" for number in range(len(groups))]
  panels = {"t-SNE of the features, k-means clusters": (groups.labels, names)}
  if is_labelled:
    title = f"the same points, {len(np.unique(labels))} classes"
    panels[title] = (labels, classes)
  points = clusters.embed(videos.found.features, seed=seed)
  save_scatter(folder / "tsne.png", points, panels)


def save_retrieval(
  folder: pathlib.Path, videos: Videos, gallery: Videos, queries: int
) -> None:
  """Writes retrieval.png: videos and the five with the most similar features.

  Args:
    folder: for the file.
    videos: what is shown.
    gallery: where neighbours are searched; if these are the same videos, one is no
      neighbour of its own.
    queries: number of rows, evenly spaced over the videos.
  """
  is_same = gallery is videos
  labels, others = videos.found.labels, gallery.found.labels
  count = min(NEIGHBOURS + is_same, len(others))
  if count <= is_same:
    logger.warning("no retrieval.png: there is only one video")
    return
  rows = spread(len(labels), queries)
  similarity, index = nearest(
    videos.found.features[rows], gallery.found.features, k=count
  )
  pictures, captions, colors = [], [], []
  for line, row in enumerate(rows):
    kept = index[line] != row if is_same else np.ones(count, bool)
    near, scores = (x[line][kept][:NEIGHBOURS] for x in (index, similarity))
    clips = [videos.clip(row), *map(gallery.clip, near)]
    pictures.append([clip[len(clip) // 2] for clip in clips])
    texts = [*map(gallery.class_of, near)]
    texts = [text or [gallery.name(i)] for text, i in zip(texts, near, strict=True)]
    captions.append(
      ["", *(f"{text}  {s:.3f}" for (text,), s in zip(texts, scores, strict=True))]
    )
    colors.append([None, *(_verdict(labels[row], others[i]) for i in near)])
  save_picture_grid(
    folder / "retrieval.png",
    pictures,
    titles=[[videos.name(row), *videos.class_of(row)] for row in rows],
    captions=captions,
    colors=colors,
    headers=["query", *(f"neighbour {i + 1}" for i in range(NEIGHBOURS))],
  )


def spread(count: int, wanted: int) -> np.ndarray:
  """At most `wanted` places of `count`: one in each of as many equal parts.

  Its place in the part differs from part to part, so that several classes are seen
  both where videos are sorted by class and where classes alternate.
  """
  part = np.arange(wanted)
  inside = (part + 1) * (5**0.5 - 1) / 2 % 1  # the golden ratio: never periodic
  return np.unique(((part + inside) * count / wanted).astype(int))


def _commonest(labels, classes, count=3) -> list[str]:
  """Lines like '12 Archery' of the classes that a cluster has most of."""
  numbers = np.bincount(labels)
  order = np.argsort(-numbers, kind="stable")[:count]
  return [f"{numbers[i]} {classes[i]}" for i in order if numbers[i]]


def _verdict(label, other):
  if label < 0 or other < 0:
    return None
  return GOOD if label == other else BAD


def _wall(clips, columns):
  """Rows of clips as one clip [1, T, H, W, 3], white where a row ends early."""
  white = np.full_like(clips[0][0], 255)
  rows = [[*row, *[white] * (columns - len(row))] for row in clips]
  edges = [(0, 0), (0, _GAP), (0, _GAP), (0, 0)]
  cells = [[np.pad(x, edges, constant_values=255) for x in row] for row in rows]
  return np.concatenate([np.concatenate(row, axis=2) for row in cells], axis=1)[None]
