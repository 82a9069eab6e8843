"""Plans of data sets from official lists, and the embedded data set."""

import pathlib
import zipfile

import numpy as np
import pytest

from motion_jax.config import UserError
from motion_jax.data import synthetic
from motion_jax.data.builders import (
  folders,
  hmdb51,
  imagenet_subset,
  kinetics400,
  plan,
  ucf101,
)

_LISTS = pathlib.Path(__file__).parents[2] / "shared" / "data" / "splits"


def _touch(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
  return str(root)


@pytest.fixture
def ucf_lists(tmp_path, monkeypatch):
  """Lists of two classes with four videos, in three splits."""
  monkeypatch.setattr(ucf101, "SIZES", ((3, 1), (3, 1), (3, 1)))
  root = tmp_path / "lists"
  root.mkdir()
  names = ["Run/v_Run_g01_c01", "Run/v_Run_g02_c01", "Jump/v_Jump_g01_c01"]
  names.append("Jump/v_Jump_g02_c01")
  (root / "classInd.txt").write_text("1 Jump\n2 Run\n")
  for number in range(3):
    test = names[number]
    train = [f"{name}.avi 1\n" for name in names if name != test]
    (root / f"trainlist0{number + 1}.txt").write_text("".join(train))
    (root / f"testlist0{number + 1}.txt").write_text(f"{test}.avi\n")
  return str(root), names


def test_ucf101_stores_each_video_once_with_its_roles(tmp_path, ucf_lists):
  lists, names = ucf_lists
  source = _touch(tmp_path / "videos", *(f"{name}.avi" for name in names))
  made = ucf101.make_plan(source, lists, False)
  assert {item.id: item.split for item in made.items} == {
    names[0]: "test_train_train",
    names[1]: "train_test_train",
    names[2]: "train_train_test",
    names[3]: "train_train_train",
  }
  assert made.classes == ("Jump", "Run") and not made.missing
  assert {item.id: item.label for item in made.items}[names[0]] == 1


def test_videos_are_found_in_any_arrangement_and_in_zip_archives(tmp_path, ucf_lists):
  lists, names = ucf_lists
  flat = [f"deep/er/{name.split('/')[1]}.mp4" for name in names]
  assert (
    len(ucf101.make_plan(_touch(tmp_path / "flat", *flat), lists, False).items) == 4
  )
  with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
    for name in names:
      archive.writestr(f"UCF-101/{name}.avi", b"x")
  made = ucf101.make_plan(str(tmp_path / "all.zip"), lists, False)
  assert made.items[0].member == f"UCF-101/{made.items[0].id}.avi"


def test_missing_videos_and_wrong_lists_are_errors_unless_allowed(tmp_path, ucf_lists):
  lists, names = ucf_lists
  source = _touch(tmp_path / "videos", *(f"{name}.avi" for name in names[:3]))
  made = ucf101.make_plan(source, lists, False)
  with pytest.raises(UserError, match=r"1 of 4 listed files.*v_Jump_g02_c01.*allow_"):
    plan.check_missing(made, False)
  plan.check_missing(made, True)
  (pathlib.Path(lists) / "testlist02.txt").write_text("")
  with pytest.raises(UserError, match=r"testlist02.txt: found 0 .* number is 1"):
    ucf101.make_plan(source, lists, False)
  with pytest.raises(UserError, match="cannot read"):
    ucf101.make_plan(source, str(tmp_path), False)
  with pytest.raises(UserError, match="--splits is missing"):
    ucf101.make_plan(source, "", False)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("UCF101.rar", "unrar x"),
    ("missing", "there is no"),
    ("a.bin", "neither a folder"),
  ],
)
def test_sources_that_cannot_be_read_are_explained(tmp_path, name, message):
  if name != "missing":
    _touch(tmp_path, name)
  with pytest.raises(UserError, match=message):
    plan.find_media(str(tmp_path / name))


def test_a_name_that_two_files_have_finds_neither():
  found = {"a/x": ("1", ""), "b/x": ("2", ""), "c/y": ("3", "")}
  lookup = plan.Lookup(found)
  assert lookup("x") is None
  assert lookup("a/x") == ("1", "") and lookup("?", "y") == ("3", "")


def test_the_official_ucf101_lists_have_the_official_sizes(tmp_path):
  lists = _LISTS / "ucf101"
  if not lists.exists():
    pytest.skip("needs shared/data/splits")
  source = _touch(tmp_path, "v_Archery_g01_c01.avi", "Surfing/v_Surfing_g07_c02.avi")
  made = ucf101.make_plan(source, str(lists), False)
  assert len(made.items) == 2 and len(made.missing) == 13318
  assert made.classes[2] == "Archery" and made.items[0].label == 2


def test_the_official_hmdb51_lists_have_the_official_sizes(tmp_path):
  lists = _LISTS / "hmdb51"
  if not lists.exists():
    pytest.skip("needs shared/data/splits")
  video = "April_09_brush_hair_u_nm_np1_ba_goo_0"
  made = hmdb51.make_plan(
    _touch(tmp_path, f"brush_hair/{video}.avi"), str(lists), False
  )
  assert len(made.missing) == 6765 and len(made.classes) == 51
  item = made.items[0]
  assert (item.id, item.label) == (f"brush_hair/{video}", 0)
  assert item.split == "train_train_test"


def test_hmdb51_lists_of_other_sizes_are_refused(tmp_path):
  (tmp_path / "run_test_split1.txt").write_text("a.avi 1\n")
  with pytest.raises(UserError, match="found 1 entries, the official number is 51"):
    hmdb51.make_plan(_touch(tmp_path / "v", "a.avi"), str(tmp_path), False)


def test_kinetics_clips_are_found_by_any_of_their_names(tmp_path):
  lists = tmp_path / "lists"
  lists.mkdir()
  (lists / "val.csv").write_text(
    "label,youtube_id,time_start,time_end,split,is_cc\n"
    "jumping,aaaaaaaaaaa,3,13,val,0\n"
    "running fast,bbbbbbbbbbb,0,10,validate,0\n"
  )
  (lists / "train.csv").write_text(
    "label,youtube_id,time_start,time_end,split\n"
    "jumping,-cccccccccc,7,17,train\njumping,ddddddddddd,1,11,train\n"
  )
  (lists / "test.csv").write_text("youtube_id,time_start,time_end,split\nx,0,10,test\n")
  source = _touch(
    tmp_path / "clips",
    "val/jumping/aaaaaaaaaaa_000003_000013.mp4",
    "val/running_fast/bbbbbbbbbbb.mkv",
    "-cccccccccc_7_17.webm",
  )
  with pytest.raises(UserError, match="found 2 entries, the official number is 400"):
    kinetics400.make_plan(source, str(lists), False)
  made = kinetics400.make_plan(source, str(lists), True)
  assert [(item.id, item.label, item.split) for item in made.items] == [
    ("jumping/-cccccccccc_000007_000017", 0, "train"),
    ("jumping/aaaaaaaaaaa_000003_000013", 0, "val"),
    ("running fast/bbbbbbbbbbb_000000_000010", 1, "val"),
  ]
  assert made.missing == ("jumping/ddddddddddd_000001_000011",)


def _imagenet(root):
  return _touch(root, *(f"n0{c}/n0{c}_{i}.JPEG" for c in range(3) for i in range(8)))


def test_an_imagenet_subset_is_a_seeded_choice_with_one_more_image_for_testing(
  tmp_path,
):
  source = _imagenet(tmp_path)
  made = imagenet_subset.make_plan(source, "", True, per_class=5)
  train = [item.id for item in made.items if item.split == "train"]
  test = [item.id for item in made.items if item.split == "test"]
  assert len(train) == 15 and len(test) == 3 and not set(train) & set(test)
  assert made.classes == ("n00", "n01", "n02")
  assert made == imagenet_subset.make_plan(source, "", True, per_class=5)
  other = imagenet_subset.make_plan(source, "", True, per_class=5, seed=1)
  assert {item.id for item in other.items} != {item.id for item in made.items}
  with pytest.raises(UserError, match="official number is 1000"):
    imagenet_subset.make_plan(source, "", False, per_class=5)


def test_images_without_class_folders_are_no_imagenet(tmp_path):
  source = _touch(tmp_path, "a.jpg", "b.jpg")
  with pytest.raises(UserError, match="expected a sub-folder of images for each class"):
    imagenet_subset.make_plan(source, "", True, per_class=1)


def test_lists_that_name_nothing_are_explained():
  with pytest.raises(UserError, match="the lists name no files"):
    plan.check_missing(plan.Plan((), ("Jump",)), True)


def test_an_imagenet_list_chooses_the_images(tmp_path):
  source = _imagenet(tmp_path / "images")
  listing = tmp_path / "imagenet_train_S2.txt"
  listing.write_text("n00/n00_3.JPEG 0\nn01/n01_1.JPEG 1\nn02/n02_99.JPEG 2\n")
  made = imagenet_subset.make_plan(source, str(listing), True, per_class=1)
  train = [item.id for item in made.items if item.split == "train"]
  assert train == ["n00/n00_3", "n01/n01_1"] and made.missing == ("n02/n02_99",)


def test_a_folder_is_parted_as_when_it_is_read_directly(tmp_path):
  source = _touch(tmp_path, *(f"{n}.mp4" for n in range(20)), "photo.jpg")
  made = folders.make_plan(source, ("video", "frames"), 0.2)
  assert {item.split for item in made.items} == {"train", "test"}
  assert len(made.items) == 20
  with pytest.raises(UserError, match="no image in"):
    folders.make_plan(_touch(tmp_path / "v", "a.mp4", "b.mp4"), ("image",), 0.2)


def test_a_synthetic_video_is_decided_by_its_seed():
  first, again, other = (
    synthetic.render(np.random.default_rng(seed), 0) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first.astype(int) - other).mean() > 20


def test_no_single_synthetic_frame_tells_its_class():
  # The scene at a random time has the same distribution in every class. Compared are
  # the quantities that some class moves; standard errors of the means are below 0.04
  # standard deviations.
  rng = np.random.default_rng(0)
  tables = []
  for motion in synthetic.CLASSES:
    rows = []
    for _ in range(700):
      t = rng.integers(synthetic.FRAMES)
      one, two = synthetic._states(rng, motion)
      gap = two["place"][t] - one["place"][t]
      middle = (two["place"][t] + one["place"][t]) / 2
      rows.append(
        [
          *middle,
          np.hypot(*gap),
          np.abs(gap[0]),
          one["scale"][t],
          np.cos(one["angle"] + 0 * one["scale"])[t],
        ]
      )
    tables.append(rows)
  tables = np.array(tables)  # [class, sample, quantity]
  overall = tables.reshape(-1, tables.shape[-1])
  shift = (tables.mean(axis=1) - overall.mean(axis=0)) / overall.std(axis=0)
  spread = tables.std(axis=1) / overall.std(axis=0)
  assert np.abs(shift).max() < 0.16
  assert spread.min() > 0.88 and spread.max() < 1.12


def test_each_synthetic_class_moves_what_it_is_named_after():
  def change(motion, quantity):
    one, two = synthetic._states(np.random.default_rng(5), motion)
    gap = two["place"] - one["place"]
    middle = (two["place"] + one["place"]) / 2
    value = {
      "scale": one["scale"],
      "angle": one["angle"],
      "distance": np.hypot(*gap.T),
      "direction": np.unwrap(np.arctan2(gap[:, 1], gap[:, 0])),
      "x": middle[:, 0],
      "y": middle[:, 1],
    }[quantity]
    return np.broadcast_to(value, (synthetic.FRAMES,))

  moving = {
    "rotate_clockwise": ("angle", 1),
    "rotate_counterclockwise": ("angle", -1),
    "grow": ("scale", 1),
    "shrink": ("scale", -1),
    "orbit": ("direction", 0),
    "sway": ("x", 0),
    "bob": ("y", 0),
    "approach": ("distance", -1),
    "separate": ("distance", 1),
    "fall": ("y", 1),
  }
  quantities = {quantity for quantity, _ in moving.values()}
  for motion, (quantity, sign) in moving.items():
    for other in quantities:
      value = change(motion, other)
      assert (np.ptp(value) > 1e-3) == (other == quantity), (motion, other)
    if sign:
      assert (np.sign(np.diff(change(motion, quantity))) == sign).all(), motion
