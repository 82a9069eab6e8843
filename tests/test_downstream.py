"""A pretrained run as others use it: evaluated, fine-tuned, features of a folder."""

import json
import shutil

import flax.nnx as nnx
import jax
import media_files
import numpy as np
import pytest
import tiny
from test_config import CONFIGS, load

from motion_jax import build_model, evaluate, extract, load_encoder
from motion_jax.config import UserError
from motion_jax.convert import convert as convert_file
from motion_jax.data import open_source
from motion_jax.data.inputs import configured_sources, feature_views
from motion_jax.data.rows import Rows
from motion_jax.evaluation import features, parts
from motion_jax.evaluation.video_accuracy import VideoAccuracy
from motion_jax.methods import make_method
from motion_jax.models import convert
from motion_jax.ops import augment
from motion_jax.scale import sharding
from motion_jax.train import train
from motion_jax.training import starting_point
from motion_jax.training.records import with_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def short_network():
  with pytest.MonkeyPatch.context() as patch:
    tiny.shorten_network(patch.setitem)
    yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A smoke run of MoSI."""
  workdir = tmp_path_factory.mktemp("runs") / "mosi"
  train(load(CONFIGS / "mosi.py").get_config("smoke"), workdir)
  return workdir


def finetune(init_from, *, word="smoke", **method):
  config = load(CONFIGS / "finetune.py").get_config(word)
  config.init_from = str(init_from)
  config.method.update(method)
  return config


def test_a_pretraining_ends_with_its_encoder_beside_random_initialisation(run):
  summary = json.loads((run / "summary.json").read_text())
  for name in ("retrieval_r1", "retrieval_centred_r10", "knn_top1", "linear_top1"):
    for prefix in ("", "random_init/"):
      assert 0 <= summary[f"eval/{prefix}{name}"] <= 1
  assert summary["eval/retrieval_r10"] >= summary["eval/retrieval_r1"]
  assert "eval/retrieval_r20" not in summary  # of 20 training videos: always 1


def test_any_run_is_evaluated_by_the_config_stored_with_it(run, tmp_path):
  config = load(CONFIGS / "evaluate.py").get_config("smoke")
  config.init_from = str(run)
  values = evaluate.evaluate(config, tmp_path)
  summary = json.loads((run / "summary.json").read_text())
  for name in ("pretext_accuracy", "retrieval_r5", "random_init/retrieval_r5"):
    assert values[f"eval/{name}"] == pytest.approx(summary[f"eval/{name}"])
  stored = json.loads((tmp_path / "evaluation.json").read_text())
  assert stored["step"] == 3 and stored["init_from"] == str(run)


def test_a_converted_file_is_evaluated_without_its_pretext(tmp_path):
  encoder = build_model("r2d3d_18", rngs=nnx.Rngs(5), width=8)
  path, run = tmp_path / "weights.pth", tmp_path / "run"
  convert.save_torch(path, convert.export_weights(encoder, "tada"))
  pretraining = load(CONFIGS / "mosi.py").get_config("smoke")
  convert_file(path, pretraining, run)
  config = load(CONFIGS / "evaluate.py").get_config("smoke")
  config.init_from = str(run)
  values = evaluate.evaluate(config, tmp_path)
  assert {"eval/retrieval_r5", "eval/random_init/retrieval_r5"} <= values.keys()
  assert "eval/pretext_accuracy" not in values
  with pytest.raises(UserError, match=r"encoder alone.*another --workdir"):
    train(pretraining, run)


def test_on_other_data_the_encoder_alone_is_evaluated(run, tmp_path):
  for name in ("a", "b"):
    (tmp_path / "videos" / name).mkdir(parents=True)
    for number in range(6):
      media_files.write_video(tmp_path / "videos" / name / f"{number}.mp4", 12)
  config = load(CONFIGS / "evaluate.py").get_config("smoke")
  config.init_from = str(run)
  config.data.path = str(tmp_path / "videos")
  config.data.heldout_fraction = 0.4
  config.eval.linear = False
  values = evaluate.evaluate(config, tmp_path)
  assert {"eval/retrieval_r1", "eval/random_init/knn_top1"} <= values.keys()
  assert not {"eval/pretext_accuracy", "eval/linear_top1"} & values.keys()
  config.data.path = str(tmp_path)
  with pytest.raises(UserError, match="not every video has a label"):
    evaluate.evaluate(config, tmp_path)


def test_one_group_after_the_other_is_left_out(run, tmp_path):
  for action in ("run", "wave"):
    (tmp_path / "videos" / action).mkdir(parents=True)
    for person in ("ann", "bob", "cid"):
      path = tmp_path / "videos" / action / f"{person}_{action}.mp4"
      media_files.write_video(path, 12)
  config = load(CONFIGS / "evaluate.py").get_config("smoke")
  config.init_from, config.eval.groups = str(run), "/([a-z]+)_"
  config.seed = 5
  config.data.path = str(tmp_path / "videos")
  values = evaluate.evaluate(config, tmp_path)
  assert {"eval/retrieval_r1", "eval/random_init/linear_top1"} <= values.keys()
  assert "eval/retrieval_r5" not in values  # of the four videos of two persons: all
  stored = json.loads((tmp_path / "evaluation.json").read_text())
  assert (stored["groups"], stored["clips"]) == ("/([a-z]+)_", 1)
  assert stored["data"] == {"path": str(tmp_path / "videos")}
  config.eval.place_scores = True
  with pytest.raises(UserError, match="place_scores is of classifiers"):
    evaluate.evaluate(config, tmp_path)
  config.eval.place_scores = None
  for key, wrong, told in (
    ("groups", "(x", "no regular expression"),
    ("stage", "conv9", "conv9"),
  ):
    config.eval.update({"groups": None, "stage": None, key: wrong})
    config.data.path = None  # the run's own data, of which more is measured
    with pytest.raises(UserError, match=told):
      evaluate.evaluate(config, tmp_path)


def test_how_a_classifier_scores_may_be_asked_for():
  stored = load(CONFIGS / "finetune.py").get_config("smoke")
  stored.model.name, stored.method.classes, stored.eval.size = "c3d", 3, 64
  asked = load(CONFIGS / "evaluate.py").get_config()
  asked.eval.place_scores = True
  config, is_other = evaluate.with_changes(stored.to_dict(), asked)
  assert not is_other
  with pytest.raises(UserError, match="which C3D's are not"):
    make_method(config)


class Right:
  """Stands for held-out videos all of which a network recognises."""

  def __init__(self, source):
    self.source = source

  def value_of_each(self, params, aux, views, value, workdir, *, dtype):
    scores = np.eye(len(self.source.classes))[np.asarray(self.source.labels)]
    return np.arange(len(scores)), value({}, {"probabilities": scores})


def test_a_small_labelled_folder_is_tested_on_every_class(tmp_path, caplog):
  for name, count in (("walk", 6), ("jump", 6), ("fall", 1)):
    (tmp_path / "videos" / name).mkdir(parents=True)
    for number in range(count):
      (tmp_path / "videos" / name / f"{number}.mp4").write_bytes(b"x")
  config = load(CONFIGS / "finetune.py").get_config("folder,scratch")
  config.data.path = str(tmp_path / "videos")
  sources = configured_sources(config.data)
  with caplog.at_level("WARNING", logger="motion_jax"):
    config = with_records(config, sources)
    held_out = Right(sources.heldout)
    classes = config.method.class_names
    values = VideoAccuracy(held_out, classes, config, tmp_path)(None, None)
  (line,) = caplog.messages
  assert line.endswith("1 of 3 classes without a held-out video: fall")
  assert values == {"eval/top1": 1.0}  # top5 of three classes is no number
  lines = (tmp_path / "predictions.tsv").read_text().splitlines()[1:]
  assert {line.split("\t")[1] for line in lines} == {"walk", "jump"}


def test_fine_tuning_starts_from_the_weights_of_the_run(
  run, videos, tmp_path, monkeypatch, caplog
):
  config = finetune(run, frozen_stages=5)
  values = train(config, tmp_path / "linear")
  lines = (tmp_path / "linear" / "predictions.tsv").read_text().splitlines()
  rows = [line.split("\t") for line in lines[1:]]
  assert len(rows) == 10
  right = np.mean([true == guess for _, true, guess, _ in rows])
  assert values["eval/top1"] == pytest.approx(right)
  before, after = load_encoder(run), load_encoder(tmp_path / "linear")
  video = np.random.default_rng(0).random((2, 4, 32, 32, 3), np.float32)
  np.testing.assert_array_equal(before(video), after(video))
  evaluation = load(CONFIGS / "evaluate.py").get_config()
  evaluation.init_from = str(tmp_path / "linear")
  again = evaluate.evaluate(evaluation, tmp_path)
  assert again["eval/top1"] == values["eval/top1"]
  assert "eval/random_init/retrieval_r1" in again
  # A checkpoint's folder is a starting point, too.
  again = finetune(tmp_path / "linear" / "checkpoints" / "3")
  found = starting_point.load_encoder_of(again, before.module)
  np.testing.assert_array_equal(load_encoder(run).module(video), found(video))

  # New videos: a table of their classes, whose scores are those of a file by hand.
  monkeypatch.setattr(extract.logs.logger, "propagate", True)
  source = open_source(videos, split="all")
  with caplog.at_level("INFO", "motion_jax"):
    features_ = _extract(tmp_path / "linear", source, tmp_path / "new.npz")["features"]
  header, *rows = (tmp_path / "new.tsv").read_text().splitlines()
  assert header.split("\t") == ["video", "predicted", "probability"]
  assert [row.partition("\t")[0] for row in rows] == [f"{n}.mp4" for n in range(7)]
  assert f"{tmp_path / 'new.tsv'} has the class of each video: " in caplog.text
  text = str(after)  # what a user needs to know of it
  for words in ("normalises", "4 frames, one in 4 at 30 a second", "of 32x32 pixels"):
    assert words in text
  clips = after.read(videos / "4.mp4", clips=2)
  assert clips.shape == (2, 4, 32, 32, 3) and 0.1 < clips.std() < clips.max() <= 1
  np.testing.assert_allclose(after(clips).mean(0), features_[4], atol=1e-4)
  scores = jax.nn.softmax(after.classifiers[0](after(clips))).mean(0)
  _, name, probability = rows[4].split("\t")
  assert name == after.config.method.class_names[int(scores.argmax())]
  assert float(probability) == pytest.approx(float(scores.max()), abs=2e-4)
  source = configured_sources(config.data).heldout
  _extract(tmp_path / "linear", source, tmp_path / "known.npz", clips=10)
  (tmp_path / "mine.tsv").touch()
  with pytest.raises(UserError, match="would go, but no mine"):
    _extract(tmp_path / "linear", source, tmp_path / "mine.npz")
  known = (tmp_path / "known.tsv").read_text().splitlines()
  assert [line.split("\t")[:2] for line in known] == [
    line.split("\t")[:2] for line in lines
  ]


def test_a_pytorch_file_is_a_starting_point(tmp_path):
  encoder = build_model("r2d3d_18", rngs=nnx.Rngs(5), width=8)
  encoder.eval()
  path = tmp_path / "weights.pth"
  convert.save_torch(path, convert.export_weights(encoder, "tada"))
  train(finetune(path, frozen_stages=5), tmp_path / "run")
  video = np.random.default_rng(0).standard_normal((1, 4, 32, 32, 3), np.float32)
  found = load_encoder(tmp_path / "run").module(video)
  np.testing.assert_allclose(encoder(video), found, atol=1e-5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(init_from=""), "'scratch' for random"),
    (dict(init_from="/nowhere/run"), "no checkpoint in"),
    (dict(width=16), "--config.model.width=8"),
    (dict(network="r3d_18"), ",network=r2d3d_18"),
  ],
)
def test_starting_points_that_do_not_fit_are_refused(run, tmp_path, change, message):
  config = finetune(change.get("init_from", run))
  config.model.width = change.get("width", config.model.width)
  config.model.name = change.get("network", config.model.name)
  with pytest.raises(UserError, match=message):
    train(config, tmp_path)


def test_a_folder_without_labels_trains_and_only_skips_retrieval(run, tmp_path, caplog):
  config = load(CONFIGS / "mosi.py").get_config("smoke")
  config.data.name, config.data.path = "folder", str(tmp_path / "videos")
  (tmp_path / "videos").mkdir()
  import media_files

  for number in range(9):
    media_files.write_video(tmp_path / "videos" / f"{number}.mp4", 12)
  config.eval.max_sources = 1
  config.data.heldout_fraction = 0.3
  with caplog.at_level("INFO", "motion_jax"):
    values = train(config, tmp_path / "run")
  assert "eval/pretext_accuracy" in values
  assert "eval/retrieval_r1" not in values
  assert "no labels" in caplog.text


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  import media_files

  folder = tmp_path_factory.mktemp("videos")
  for number in range(7):
    media_files.write_video(folder / f"{number}.mp4", 10 + number)
  (folder / "bad.mp4").write_bytes(b"no video")
  return folder


def _extract(run, source, out, clips=2, threads=8):
  trained = load_encoder(run)
  trained.config.eval.clips, trained.config.data.threads = clips, threads
  extract.extract(trained, source, out, batch_size=8)
  return dict(np.load(out))


def test_features_of_a_folder_survive_an_interruption(
  run, videos, tmp_path, monkeypatch
):
  monkeypatch.setattr(parts, "_SECONDS", 0.0)
  source = open_source(videos, split="all")
  whole = _extract(run, source, tmp_path / "whole.npz")
  assert whole["ids"].tolist() == [f"{n}.mp4" for n in range(7)]
  assert whole["features"].shape == (7, load_encoder(run).features)
  decoded, parts_of = [], Rows.parts

  def stop_late(self, index, rng):
    decoded.append(index)
    if len(decoded) == 7:
      raise KeyboardInterrupt
    return parts_of(self, index, rng)

  with monkeypatch.context() as patch:
    patch.setattr(Rows, "parts", stop_late)
    with pytest.raises(KeyboardInterrupt):
      _extract(run, source, tmp_path / "part.npz", threads=1)
  shutil.copytree(videos, tmp_path / "others")
  others = open_source(tmp_path / "others", split="all")
  for of, clips in ((source, 3), (others, 2)):
    with pytest.raises(UserError, match="another encoder, folder or setting"):
      _extract(run, of, tmp_path / "part.npz", clips=clips)
  (left,) = (tmp_path / "part.npz.parts").iterdir()
  (left.parent / ".nfs0001").touch()  # a file that another process still has open
  (left / "99999999.npz").write_bytes(b"damaged by a crash")
  with monkeypatch.context() as patch:
    patch.setattr(Rows, "parts", stop_late)  # it would stop again at all of them
    del decoded[:]
    _extract(run, source, tmp_path / "part.npz")
  assert 0 < len(decoded) < 7
  assert (tmp_path / "part.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
  assert not (tmp_path / "part.npz.parts").exists()


def test_of_damaged_videos_alone_there_is_no_feature(run, tmp_path):
  (tmp_path / "bad.mp4").write_bytes(b"no video")
  found = _extract(run, open_source(tmp_path, split="all"), tmp_path / "none.npz")
  assert len(found["features"]) == len(found["ids"]) == 0


def test_a_video_is_the_mean_of_its_clips_whatever_the_batch(run, videos):
  trained = load_encoder(run)
  config = trained.config
  config.eval.clips = 3
  source, views = open_source(videos, split="all"), feature_views(trained.config)
  found = [
    features.FeatureExtractor(trained.module, config, sharding.make_mesh(), size)(
      [trained.module], source, views
    )[0]
    for size in (2, 16)
  ]
  np.testing.assert_allclose(found[0].features, found[1].features, atol=1e-5)
  clips = views(source[0], np.random.default_rng(0))["video"]
  crop = clips[:, :, 2:34, 2:34] if views.short_side == 37 else None
  assert crop is not None
  expected = jax.device_get(trained(crop)).mean(0)
  np.testing.assert_allclose(found[0].features[0], expected, atol=1e-4)


def test_an_earlier_stage_gives_its_mean_and_deviation(run, videos):
  trained = load_encoder(run)
  config = trained.config
  config.eval.clips, config.eval.stage = 2, "conv2"
  source, views = open_source(videos, split="all"), feature_views(config)
  extractor = features.FeatureExtractor(trained.module, config, sharding.make_mesh(), 4)
  (found,) = extractor([trained.module], source, views)
  clips = views(source[0], np.random.default_rng(0))["video"][:, :, 2:34, 2:34]
  clips = augment.normalize(clips / 255.0, config.method.mean, config.method.std)
  activation = jax.jit(lambda x: trained.module.until(x, "conv2"))(clips)
  each = activation.mean((1, 2, 3)), activation.std((1, 2, 3))
  expected = np.concatenate([x.mean(0) for x in jax.device_get(each)])
  np.testing.assert_allclose(found.features[0], expected, atol=1e-4)
  config.eval.stage = "layer2"
  with pytest.raises(UserError, match="conv2"):
    features.FeatureExtractor(trained.module, config, sharding.make_mesh(), 4)


def test_a_run_copied_elsewhere_is_evaluated_there(run, tmp_path):
  shutil.copytree(run, tmp_path / "copy")
  assert load_encoder(tmp_path / "copy").step == 3
