"""Pictures of features, maps and confusions, and the command that draws a run."""

import json
import sys

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import media_files
import numpy as np
import pytest
import tiny
from PIL import Image
from test_config import CONFIGS, load

from motion_jax import models, pictures
from motion_jax.config import UserError
from motion_jax.data import open_source
from motion_jax.evaluation import explain, feature_pictures
from motion_jax.evaluation.measures import clusters, confusion, motion_share
from motion_jax.methods import make_method
from motion_jax.ops import augment, crops
from motion_jax.scale import sharding
from motion_jax.training.checkpoint import ENCODER_ONLY, Checkpoints
from motion_jax.visualize import canvas, grids, maps, scatter, style
from motion_jax.visualize.confusion import save_confusion

NAMES = ("bow", "$price$", "caf\udce9")  # a formula, and bytes that are no text


def picture(path):
  return np.asarray(Image.open(path).convert("RGB")).astype(int)


def shows(path, color):
  wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
  return (abs(picture(path) - wanted) < 8).all(-1)


@pytest.fixture(scope="module")
def blobs():
  """Features in three directions: 12, 30 and 6 rows."""
  rng = np.random.default_rng(0)
  groups = np.repeat([0, 1, 2], [12, 30, 6])
  return np.eye(8)[groups] + 0.05 * rng.normal(size=(48, 8)), groups


def test_clusters_are_the_groups_and_the_largest_comes_first(blobs):
  features, groups = blobs
  found = clusters.find_clusters(features * np.linspace(1, 9, 48)[:, None], 3)
  np.testing.assert_array_equal(found.labels, np.array([1, 0, 2])[groups])
  assert len(found) == 3
  unit = features / np.linalg.norm(features, axis=1, keepdims=True)
  for number in range(3):
    rows = found.members(number)
    distance = np.linalg.norm(unit[rows] - unit[rows].mean(0), axis=1)
    assert (np.diff(distance) > -1e-5).all()
  assert len(clusters.find_clusters(np.ones((4, 3)), 3)) == 1


def test_on_the_map_groups_lie_apart(blobs):
  features, groups = blobs
  points = clusters.embed(features)
  assert points.shape == (48, 2)
  distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
  np.fill_diagonal(distance, np.inf)
  np.testing.assert_array_equal(groups[distance.argmin(1)], groups)


def test_without_scikit_learn_the_message_says_how_to_get_it(monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
  with pytest.raises(UserError, match=r"motion_jax\[visualize\]"):
    clusters.check_installed()


def test_the_confusion_matrix_counts_the_predictions_file(tmp_path):
  path = tmp_path / "predictions.tsv"
  rows = ["a\tbow\tbow", "b\tbow\train", 'c\train\t"x', "d\tbow\train"]
  lines = ["video\tclass\tpredicted\tprobability", *(f"{row}\t0.5" for row in rows)]
  path.write_text("\n".join(lines) + "\n")
  classes, labels, predicted = confusion.read_predictions(path)
  assert classes == ('"x', "bow", "rain")
  matrix = confusion.confusion_matrix(labels, predicted, 3)
  assert matrix.tolist() == [[0, 0, 0], [0, 1, 2], [1, 0, 0]]
  assert confusion.most_confused(matrix, 5) == [(1, 2, 2), (2, 0, 1)]
  path.write_text("video\tlabel\nx\t1\n")
  with pytest.raises(ValueError, match="columns class and predicted"):
    confusion.read_predictions(path)


def test_a_confusion_matrix_is_dark_where_all_videos_are(tmp_path):
  matrix = np.array([[9, 0, 0], [0, 5, 5], [0, 0, 8]])
  save_confusion(tmp_path / "c.png", matrix, NAMES, [(1, 2, 5)])
  dark = shows(tmp_path / "c.png", "#08306b")  # the end of the colours: share 1
  assert dark.sum() > 2 * 40**2
  many = np.eye(150, dtype=int)
  save_confusion(tmp_path / "many.png", many, [f"class {i}" for i in range(150)])
  assert picture(tmp_path / "many.png").shape[0] > picture(tmp_path / "c.png").shape[0]


def test_points_have_the_colours_of_their_groups(tmp_path):
  points = np.random.default_rng(0).normal(size=(40, 2))
  groups = np.arange(40) % 3
  panels = {"one": (groups, NAMES), "two": (0 * groups, ["all"])}
  scatter.save_scatter(tmp_path / "s.png", points, panels)
  blue, green = (shows(tmp_path / "s.png", c) for c in ("#1f77b4", "#2ca02c"))
  half = blue.shape[1] // 2
  assert blue[:, :half].any() and blue[:, half:].any()
  assert green[:, :half].any() and not green[:, half:].any()


def test_long_texts_lose_their_middle():
  assert canvas.shortened("archery_0001", 20) == "archery_0001"
  assert canvas.shortened("archery_0001", 7) == "arc…001"


def test_a_picture_grid_shows_pictures_pixel_for_pixel_in_their_outlines(tmp_path):
  frames = np.random.default_rng(0).integers(0, 256, (3, 56, 60, 3), np.uint8)
  path = tmp_path / "g.png"
  grids.save_picture_grid(
    path,
    [[frames[0], frames[1]], [frames[2]]],
    titles=[["one", NAMES[1]], [NAMES[2]]],
    captions=[["", "near"], [""]],
    colors=[[None, style.GOOD], [style.BAD]],
    headers=["query", "first"],
  )
  shown = picture(path)
  places = [(0, 0), (0, 1), (1, 0)]
  for frame, (row, column) in zip(frames, places, strict=True):
    top = grids.HEADER + row * (112 + grids.CAPTION + grids.GAP)
    left = grids.TITLES + column * (120 + grids.GAP)
    expected = frame.repeat(2, axis=0).repeat(2, axis=1)
    inner = shown[top : top + 112, left : left + 120]
    np.testing.assert_array_equal(inner[4:-4, 4:-4], expected[4:-4, 4:-4])
    for color, outlined in ((style.GOOD, (0, 1)), (style.BAD, (1, 0))):
      edge = shows(path, color)[top + 20 : top + 90, left - 3 : left]
      assert edge.any() == (outlined == (row, column))


def test_maps_are_laid_over_clips_in_their_colours():
  clips = np.full((1, 2, 4, 4, 3), 100, np.uint8)
  heat = np.zeros((1, 2, 4, 4))
  heat[0, :, 0] = 1
  shown = maps.overlay(clips, heat)
  # The ends of viridis are (253, 231, 37) and (68, 1, 84).
  np.testing.assert_allclose(shown[0, 0, 0, 0], [176, 166, 68], atol=1)
  np.testing.assert_allclose(shown[0, 1, 3, 3], [84, 50, 92], atol=1)
  speed = np.zeros((2, 2, 4, 4))
  speed[0, :, :2], speed[1, 0], speed[1, 1] = 0.3, 7, 0.01
  bright = maps.speed_pictures(speed).astype(int).sum(-1)
  assert (bright[0, :, :2] == bright.max()).all() and bright[0, :, 2:].max() < 30
  assert (bright[1, 0] == bright.max()).all()
  assert bright[1, 1].max() < bright.max() / 4  # a still frame
  assert np.isfinite(maps.speed_pictures(0 * speed)).all()


def test_a_map_grid_has_a_block_per_clip_and_the_gif_all_frames(tmp_path):
  shape = (3, 5, 56, 56, 3)
  rows = {
    name: np.random.default_rng(i).integers(0, 256, shape, np.uint8)
    for i, name in enumerate(("clip", "Grad-CAM\nconv5"))
  }
  maps.save_map_grid(tmp_path / "m.png", rows, NAMES, frames=2)
  shown, pitch = picture(tmp_path / "m.png"), 112 + maps.GAP
  block = (maps.HEADER + 2 * pitch + 14, 2 * pitch + maps.BLOCK_GAP)
  for number in range(3):
    for line, clips in enumerate(rows.values()):
      for column, frame in enumerate((0, 4)):
        top = number // 2 * block[0] + maps.HEADER + line * pitch
        left = maps.LABELS + number % 2 * block[1] + column * pitch
        expected = clips[number, frame].repeat(2, axis=0).repeat(2, axis=1)
        cell = shown[top : top + 112, left : left + 112]
        np.testing.assert_array_equal(cell, expected)
  maps.save_map_gif(tmp_path / "m.gif", rows)
  with Image.open(tmp_path / "m.gif") as gif:
    assert gif.n_frames == 5
    assert gif.height >= maps.HEADER + 3 * pitch and gif.width >= 2 * pitch


class Encoder(tiny.Encoder):
  """The tiny encoder, which can be stopped and goes on, as those of `models`."""

  def until(self, video, name):
    return nnx.relu(self.path(video))

  def after(self, activation, name):
    return activation.mean((1, 2, 3))

  def stage_paths(self):
    return []


@pytest.fixture
def small(monkeypatch):
  """Networks that compile in a second, and differences in the place of flow."""
  monkeypatch.setattr(models, "build_model", lambda name, **options: Encoder(**options))

  def difference(first, second):
    return (second - first)[..., :2] * 20

  monkeypatch.setattr(explain, "variational_flow", difference)
  # As before a command sent the log lines to its own stderr.
  monkeypatch.setattr(pictures.logger, "propagate", True)
  monkeypatch.setattr(pictures.logger, "handlers", [])


@pytest.fixture
def quick_to_compile():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  """Two classes of five videos, and two files that are none."""
  folder = tmp_path_factory.mktemp("videos")
  for name in ("a", "b"):
    (folder / name).mkdir()
    for number in range(5):
      media_files.write_video(folder / name / f"{number}.mp4", 10 + 3 * number)
  (folder / "b" / "bad.mp4").write_bytes(b"no video")
  return folder


def make_run(workdir, name, path, stored=(), **method):
  """A checkpoint of an untrained method; `stored` goes into the config kept with it."""
  config = load(CONFIGS / f"{name}.py").get_config("smoke")
  config.data.name, config.data.path = "folder", str(path)
  config.data.heldout_fraction = 0.4
  config.method.update(method)
  task = make_method(config)
  weights = jax.jit(task.init)(jax.random.key(5))
  checkpoints = Checkpoints(workdir)
  checkpoints.save_weights(*weights, {**config.to_dict(), **dict(stored)})
  checkpoints.close()
  return task, config, weights


def draw(run, workdir, path=None, **options):
  config = load(CONFIGS / "visualize.py").get_config("smoke")
  config.init_from = str(run)
  config.data.path = path and str(path)
  config.pictures.update(max_videos=0, smallest=32, clusters=3, **options)
  return pictures.visualize(config, workdir)


FEATURE_FILES = {"clusters.gif", "clusters.png", "retrieval.png", "tsne.png"}
FILES = {*FEATURE_FILES, "gradcam.gif", "gradcam.png", "motion_share.json"}


@pytest.mark.slow
def test_a_run_is_drawn_on_any_folder(small, videos, tmp_path, caplog):
  make_run(tmp_path / "run", "mosi", videos)
  folder = tmp_path / "pictures"
  folder.mkdir()
  for name in (*pictures.FILES, "mine.txt"):  # of an earlier run, and of someone
    (folder / name).touch()
  with caplog.at_level("INFO", "motion_jax"):
    values = draw(tmp_path / "run", tmp_path, videos, static_camera=True)
  assert {path.name for path in folder.iterdir()} == {*FILES, "mine.txt"}
  assert all((folder / name).stat().st_size for name in FILES)
  assert values["clips"] + values["still_clips"] + values["empty_maps"] == 10
  assert values["clips"] and 0 < values["trained"] < 1
  assert values["flat"] == pytest.approx(0.2, abs=0.01)
  assert values["object/itself"] > max(values["object/flat"], values["object/trained"])
  assert json.loads((folder / "motion_share.json").read_text()) == values
  assert "Grad-CAM of motion: mass in the 20%" in caplog.text
  assert "1 of 11 videos are left out" in caplog.text


def test_the_background_is_of_the_same_video_and_its_clip(small, tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  places = 8 + 4 * np.arange(14)
  for number in range(3):
    scene = rng.integers(60, 190, (6, 6, 3), np.uint8).repeat(12, 0).repeat(12, 1)

    def draw_square(index, scene=scene):
      picture = scene.copy()
      picture[28:44, places[index] : places[index] + 12] = 255
      return picture

    path = tmp_path / f"{number}.mp4"
    media_files.write_video(path, 12, size=(72, 72), draw=draw_square)
  (tmp_path / "bad.mp4").write_bytes(b"no video")
  task, config, weights = make_run(tmp_path / "run", "mosi", tmp_path)
  config.data.interval, config.data.fps, config.eval.crop_ratio = 1, 0.0, 1.0
  source = open_source(tmp_path, split="all", heldout_by="file")
  options = dict(stage="conv5", size=72, with_background=True)
  viewers = {"trained": explain.Viewer(task.encoder(*weights), [])}
  mesh, shapes, resize = sharding.make_mesh(), [], crops.resize_crops

  def seen_resize(video, *args, **kwargs):
    shapes.append(video.shape)
    return resize(video, *args, **kwargs)

  monkeypatch.setattr(crops, "resize_crops", seen_resize)
  (seen,) = explain.clip_maps(viewers, source, config, mesh, **options)
  assert len(seen.clips) == 3 and seen.cells == (1, 9, 9)
  whole = [shape[0] for shape in shapes if shape[1] == 32]
  assert whole == [mesh.size]  # not a batch of them, which takes gigabytes
  chosen, moves = motion_share.unlike_background(seen.clips, seen.background)
  assert moves.all()
  for mask, clip in zip(chosen, seen.clips, strict=True):
    square = (clip.min(-1) > 240)[..., 28:44, :]
    assert square.sum() > 4 * 150 and mask[:, 28:44][square].all()
    assert mask.mean() < 1.7 * square.sum() / mask.size


# Of the networks that have no classes; the first is an encoder without its head.
WITHOUT_CLASSES = {"mosi": {ENCODER_ONLY: True}, "modist": {}, "mas": {}, "joint": {}}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.parametrize("name", WITHOUT_CLASSES)
def test_of_a_network_without_classes_the_attention_is_drawn(
  small, videos, tmp_path, caplog, monkeypatch, name
):
  monkeypatch.setattr(pictures, "_draw_features", lambda *_: None)  # the same for all
  make_run(tmp_path / "run", name, videos, stored=WITHOUT_CLASSES[name])
  with caplog.at_level("INFO", "motion_jax"):
    draw(tmp_path / "run", tmp_path, videos / "a")
  assert "attention: mass in the 20%" in caplog.text
  found = {path.name for path in (tmp_path / "pictures").iterdir()}
  assert found == {"attention.png", "attention.gif", "motion_share.json"}


@pytest.mark.slow
def test_a_classifier_on_its_own_data_gets_its_confusion_matrix(
  small, videos, tmp_path, caplog
):
  run = tmp_path / "run"
  make_run(run, "finetune", videos, classes=2)
  (run / "summary.json").touch()
  draw(run, tmp_path)
  assert "predictions.tsv is missing" in caplog.text
  (run / "predictions.tsv").write_text("class\tpredicted\na\tb\n")
  draw(run / "checkpoints" / "0", tmp_path)
  assert (tmp_path / "pictures" / "confusion.png").exists()


def test_an_encoder_without_a_classifier_gets_its_attention():
  encoder = Encoder(rngs=nnx.Rngs(0))
  encoder.eval()

  viewer = explain.Viewer(encoder, [])
  video = jax.random.normal(jax.random.key(0), (2, 4, 32, 32, 3))
  look = nnx.jit(explain.Viewer.__call__, static_argnames="stage")
  found, labels = look(viewer, video, stage="conv5")
  energy = nnx.jit(Encoder.until, static_argnums=2)(encoder, video, "conv5") ** 2
  energy = energy.sum(-1).mean(1, keepdims=True)
  expected = jax.image.resize(energy, found.shape, "linear", antialias=False)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert labels.shape == (2, 0)


@pytest.mark.slow
@pytest.mark.long
def test_the_classifier_that_is_explained_is_the_runs(small, videos, tmp_path):
  task, config, weights = make_run(tmp_path / "run", "finetune", videos, classes=3)
  viewer = explain.Viewer(task.encoder(*weights), task.classifiers(*weights))
  video = np.random.default_rng(0).integers(0, 256, (2, 4, 48, 48, 3), np.uint8)
  extent = jnp.full((2, 2), 48)
  batch = dict(video=video, extent=extent, label=jnp.zeros(2, int), valid=extent[:, 0])

  @nnx.jit
  def explained(viewer, video, extent):
    boxes = crops.center_square(extent, ratio=config.eval.crop_ratio)
    size = config.eval.size or config.method.size
    clips = crops.resize_crops(video, boxes, size=size)
    clips = augment.normalize(clips, config.method.mean, config.method.std)
    scores = jax.nn.softmax(viewer.heads[0](viewer.encoder(clips)))
    return scores, *viewer(clips, stage="conv5")

  found, seen, labels = explained(viewer, video, extent)
  expected = jax.jit(task.predict)(*weights, batch)["probabilities"]
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert seen.shape[:2] == (2, 4) and seen.shape[2] == seen.shape[3]
  np.testing.assert_array_equal(labels[:, 0], expected.argmax(-1))


def test_a_video_is_no_neighbour_of_its_own(videos, tmp_path, monkeypatch):
  drawn = {}

  def keep(path, rows, **texts):
    drawn.update(texts, rows=rows)

  monkeypatch.setattr(feature_pictures, "save_picture_grid", keep)
  source = open_source(videos / "a", split="all")
  features = np.array([[0, 1], [1, 0], [0.1, 1], [1, 0.1], [1, 0.2]], np.float32)
  found = feature_pictures.Features(features, np.full(5, -1), np.arange(5))
  views = feature_pictures.Views(1, 4, 1, short_side=32, canvas=(32, 32))
  videos = feature_pictures.Videos(source, found, views)
  feature_pictures.save_retrieval(tmp_path, videos, videos, 5)
  nearest = [row[1].split()[0] for row in drawn["captions"]]
  assert nearest == ["2", "3", "0", "4", "3"]
  assert [len(row) for row in drawn["rows"]] == [5] * 5
  assert drawn["colors"][0] == [None] * 5  # there are no classes


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(stage="res5"), "conv5"),
    (dict(explains="still"), "pictures.explains"),
    (dict(moving=1.5), "pictures.moving=1.5"),
    (dict(queries=0), "pictures.queries=0"),
  ],
)
def test_wrong_settings_are_refused_at_once(tmp_path, change, message):
  with pytest.raises(UserError, match=message):
    draw("somewhere", tmp_path, **change)


def test_what_has_no_class_at_rest_explains_no_motion(videos, tmp_path):
  make_run(tmp_path / "run", "mosi", videos, static=False)
  with pytest.raises(UserError, match=r"explains='motion'.*\(mosi\) has none"):
    draw(tmp_path / "run", tmp_path, videos, explains="motion")


def test_without_a_run_the_message_names_the_option(tmp_path):
  with pytest.raises(UserError, match=r"--config.init_from=runs/NAME"):
    draw("", tmp_path)


@pytest.mark.parametrize("count", [3, 5, 160, 500])
def test_examples_are_of_several_classes_however_the_videos_are_ordered(count):
  for wanted in (4, 6):
    places = feature_pictures.spread(count, wanted)
    assert (np.diff(places) > 0).all()
    assert places.min() >= 0 and places.max() < count
    if count >= 160:
      assert len(places) == wanted
      assert len(set(places * 10 // count)) >= 3  # ten classes, sorted
      assert len(set(places % 10)) >= 3  # ten classes in turn
