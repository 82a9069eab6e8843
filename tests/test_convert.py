"""PyTorch weights: names, round trips, files, and what is refused."""

import os
import pickle
import zipfile

import golden_weights
import jax
import numpy as np
import pytest
from flax import nnx

from motion_jax.models import build_model, common, convert, heads

FIXTURES = {
  "net_r2d3d18_mosi": ("r2d3d_18", "tada"),
  "net_r2p1d10_mosi": ("r2plus1d_10", "tada"),
  "net_r3d18": ("r3d_18", "torchvision"),
  "net_slow_r50_c5": ("r3d_50", "slowfast"),
  "net_motion_r50_w8": ("motion_r50", "slowfast"),
}
LAYOUTS = [
  *FIXTURES.values(),
  ("r2d3d_18", "tada_finetuned"),
  ("r2plus1d_18", "torchvision"),
  *((name, "dpc") for name in ("r2d3d_18_dpc", "r2d3d_34")),
]
HEADS = {"tada": "head.out_joint", "tada_finetuned": "head.out", "torchvision": "fc"}
HEADS |= {"slowfast": "head.projection"}


def random_split(make, seed):
  """A split module in which every array is random; nothing is compiled."""
  graphdef, params, stats = common.split(nnx.eval_shape(make))
  rng = np.random.default_rng(seed)
  params, stats = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), (params, stats)
  )
  return graphdef, params, stats


def encoder(name, seed=0, width=8):
  return random_split(lambda: build_model(name, rngs=nnx.Rngs(0), width=width), seed)


def classifier(seed=0, dim=32, classes=5):
  return random_split(
    lambda: heads.Classifier(dim, classes, dropout=0.5, rngs=nnx.Rngs(0)), seed
  )


def assert_same_arrays(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, actual[1:], expected[1:])


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_saved_network_comes_back_equal(name, layout, tmp_path):
  original = encoder(name)
  state = convert.export_weights(original, layout)
  head = None
  if layout in HEADS:
    head = classifier()
    state |= convert.export_weights(head, layout)
  convert.save_torch(tmp_path / "weights.pth", state)
  loaded = convert.load_torch(tmp_path / "weights.pth")
  assert list(loaded) == list(state)
  copy, report = convert.import_weights(encoder(name, seed=1), loaded, layout)
  assert_same_arrays(copy, original)
  rest = [f"{HEADS[layout]}.{leaf}" for leaf in ("weight", "bias")] if head else []
  assert (report.missing, report.unexpected) == ((), tuple(rest))
  assert len(report.loaded) == len(jax.tree.leaves(original[1:]))
  if head:
    copy, report = convert.import_weights(classifier(seed=1), loaded, layout)
    assert_same_arrays(copy, head)
    assert (report.loaded, report.missing) == (tuple(rest), ())


@pytest.mark.parametrize("fixture", FIXTURES)
def test_names_and_shapes_are_those_of_the_reference(fixture):
  name, layout = FIXTURES[fixture]
  entries = golden_weights.fixture(fixture)["state"]
  shapes = {entry["name"]: tuple(entry["shape"]) for entry in entries}
  network = encoder(name, width=None)
  classes, dim = shapes[f"{HEADS[layout]}.weight"]
  head = classifier(dim=dim, classes=classes)
  state = convert.export_weights(network, layout) | convert.export_weights(head, layout)
  assert {key: value.shape for key, value in state.items()} == shapes


@pytest.mark.parametrize(
  ("name", "layout", "some"),
  [
    (
      "r2plus1d_18",
      "torchvision",
      {
        "stem.0.weight": (5, 3, 1, 7, 7),
        "stem.3.weight": (8, 5, 3, 1, 1),
        "stem.4.running_var": (8,),
        "layer1.0.conv1.0.0.weight": (18, 8, 1, 3, 3),
        "layer1.0.conv1.0.3.weight": (8, 18, 3, 1, 1),
        "layer2.0.downsample.0.weight": (16, 8, 1, 1, 1),
      },
    ),
    (
      "r2d3d_34",
      "dpc",
      {
        "conv1.weight": (8, 3, 1, 7, 7),
        "layer3.5.conv1.weight": (32, 32, 3, 3, 3),
        "layer4.0.downsample.0.weight": (32, 32, 1, 1, 1),
        "layer4.0.downsample.1.bias": (32,),
      },
    ),
  ],
)
def test_names_without_a_reference_follow_their_program(name, layout, some):
  state = convert.export_weights(encoder(name), layout)
  assert {key: state[key].shape for key in some if key in state} == some


def test_axes_are_those_of_pytorch():
  network, head = encoder("r3d_18"), classifier()
  state = convert.export_weights(network, "torchvision")
  kernel = network[1]["stem"]["path"]["convs"][0]["kernel"]
  np.testing.assert_array_equal(
    state["stem.0.weight"], np.einsum("thwio->oithw", kernel)
  )
  state = convert.export_weights(head, "torchvision")
  np.testing.assert_array_equal(state["fc.weight"], head[1]["kernel"].T)


def test_a_module_is_copied_not_changed():
  head = heads.Classifier(4, 3, dropout=0.0, rngs=nnx.Rngs(0))
  before = np.array(head.kernel[...])
  state = {"fc.weight": np.ones((3, 4)), "fc.bias": np.zeros(3)}
  copy, _ = convert.import_weights(head, state, "torchvision")
  np.testing.assert_array_equal(copy.kernel[...], 1)
  np.testing.assert_array_equal(head.kernel[...], before)


def test_missing_and_unexpected_names_are_reported():
  state = convert.export_weights(encoder("r3d_18"), "torchvision")
  del state["layer1.0.conv1.0.weight"]
  state["stem.1.num_batches_tracked"] = np.array(7)
  state["fc.bias"] = np.zeros(3)
  target = encoder("r3d_18", seed=1)
  copy, report = convert.import_weights(target, state, "torchvision")
  assert report.missing == ("layer1.0.conv1.0.weight",)
  assert report.unexpected == ("fc.bias",)
  text = "1 missing (layer1.0.conv1.0.weight); 1 unexpected (fc.bias)"
  assert str(report) == f"loaded {len(report.loaded)} arrays; {text}"
  kernels = [
    split[1]["stages"][0][0]["path"]["convs"][0]["kernel"] for split in (copy, target)
  ]
  np.testing.assert_array_equal(*kernels)


def test_wrong_shapes_layouts_and_names_are_refused():
  narrow = convert.export_weights(encoder("r3d_18", width=4), "torchvision")
  with pytest.raises(ValueError, match=r"stem\.0\.weight .*\(4, 3, .*needs \(8, 3, "):
    convert.import_weights(encoder("r3d_18"), narrow, "torchvision")
  with pytest.raises(ValueError, match=r"'keras' is unknown.*torchvision"):
    convert.export_weights(classifier(), "keras")
  with pytest.raises(ValueError, match=r"'tada' has no names .* 4 .* has 3"):
    convert.export_weights(encoder("r3d_50"), "tada")
  with pytest.raises(ValueError, match="no classifier"):
    convert.export_weights(classifier(), "dpc")
  with pytest.raises(ValueError, match=r"no array fits.*found stem.*expected backbone"):
    convert.import_weights(encoder("r3d_18"), narrow, "tada")


def test_files_of_mosi_have_their_weights_under_model_state(tmp_path):
  torch = pytest.importorskip("torch")
  network, head = encoder("r2d3d_18"), classifier(classes=9)
  state = convert.export_weights(network, "tada") | convert.export_weights(head, "tada")
  tensors = {key: torch.from_numpy(value.copy()) for key, value in state.items()}
  tensors["backbone.conv1.a_bn.num_batches_tracked"] = torch.tensor(7)
  whole = {"epoch": 3, "model_state": tensors, "cfg": "a: 1"}
  whole["optimizer_state"] = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}
  torch.save(whole, tmp_path / "checkpoint.pyth")
  loaded = convert.load_torch(tmp_path / "checkpoint.pyth")
  copy, report = convert.import_weights(encoder("r2d3d_18", seed=1), loaded, "tada")
  assert_same_arrays(copy, network)
  assert not report.missing
  assert report.unexpected == ("head.out_joint.weight", "head.out_joint.bias")
  copy, _ = convert.import_weights(classifier(1, classes=9), loaded, "tada")
  assert_same_arrays(copy, head)


def test_files_of_dpc_have_prefixes_of_their_program(tmp_path):
  torch = pytest.importorskip("torch")
  network = encoder("r2d3d_18")
  state = convert.export_weights(network, "dpc")
  tensors = {f"module.backbone.{k}": torch.tensor(v) for k, v in state.items()}
  tensors["module.network_pred.0.bias"] = torch.zeros(2)
  torch.save({"state_dict": tensors}, tmp_path / "dpc.pth.tar")
  loaded = convert.load_torch(tmp_path / "dpc.pth.tar")
  copy, report = convert.import_weights(encoder("r2d3d_18", seed=1), loaded, "dpc")
  assert_same_arrays(copy, network)
  assert report.unexpected == ("network_pred.0.bias",)


@pytest.mark.parametrize("zipped", [True, False])
def test_any_tensor_of_pytorch_is_read(zipped, tmp_path):
  torch = pytest.importorskip("torch")
  base = torch.arange(24.0).reshape(2, 3, 4)
  tensors = {
    "plain": base,
    "transposed": base.permute(2, 0, 1),
    "part": base[1, :, 1::2],
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(base[0].clone()),
    **{
      str(kind): torch.tensor([1, 0, 3]).to(kind)
      for kind in (torch.half, torch.bfloat16, torch.double, torch.int32, torch.bool)
    },
  }
  path = tmp_path / "weights.pth"
  torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
  loaded = convert.load_torch(path)
  assert list(loaded) == list(tensors)
  for name, tensor in tensors.items():
    assert str(loaded[name].dtype) == str(tensor.dtype).removeprefix("torch.")
    expected = tensor.detach().to(torch.double).numpy()
    np.testing.assert_array_equal(loaded[name].astype(np.float64), expected)


def test_pytorch_reads_what_we_write(tmp_path):
  torch = pytest.importorskip("torch")
  state = convert.export_weights(encoder("r2plus1d_10"), "tada")
  convert.save_torch(tmp_path / "weights.pth", state)
  tensors = torch.load(tmp_path / "weights.pth", weights_only=True)
  assert list(tensors) == list(state)
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(tensor.numpy(), state[name])


class Attack:
  """Makes a folder when it is unpickled without care."""

  def __init__(self, folder):
    self.folder = str(folder)

  def __reduce__(self):
    return os.mkdir, (self.folder,)


def write_zip(path, data, storage=b""):
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", data)
    file.writestr("archive/data/0", storage)


def read_zip(path):
  with zipfile.ZipFile(path) as file:
    return file.read("archive/data.pkl"), file.read("archive/data/0")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"model_state": bad}])
def test_a_malicious_pickle_runs_nothing_and_is_refused(zipped, wrap, tmp_path):
  folder, path = tmp_path / "owned", tmp_path / "weights.pth"
  data = pickle.dumps(wrap(Attack(folder)), protocol=2)
  write_zip(path, data) if zipped else path.write_bytes(data)
  with pytest.raises(ValueError, match=r"weights\.pth"):
    convert.load_torch(path)
  assert not folder.exists()
  pickle.loads(data)
  assert folder.exists()  # the attack itself works


def test_objects_beside_the_weights_run_nothing(tmp_path):
  folder, path = tmp_path / "owned", tmp_path / "weights.pth"
  convert.save_torch(path, {"fc.bias": np.arange(3, dtype=np.float32)})
  weights, storage = read_zip(path)
  attack = pickle.dumps(Attack(folder), protocol=2).removeprefix(b"\x80\x02")
  name = b"X\x06\x00\x00\x00attack"
  write_zip(path, weights.removesuffix(b"u.") + name + attack[:-1] + b"u.", storage)
  loaded = convert.load_torch(path)
  assert list(loaded) == ["fc.bias"]
  np.testing.assert_array_equal(loaded["fc.bias"], [0, 1, 2])
  assert not folder.exists()


def test_files_that_are_no_checkpoints_or_are_cut_are_refused(tmp_path):
  path = tmp_path / "weights.pth"
  convert.save_torch(path, {"fc.bias": np.zeros(9, np.float32)})
  data, _ = read_zip(path)
  write_zip(path, data, bytes(8 * 4))  # one number short
  with pytest.raises(ValueError, match="outside its storage"):
    convert.load_torch(path)
  write_zip(path, data[: len(data) // 2], bytes(9 * 4))
  with pytest.raises(ValueError, match=r"weights\.pth"):
    convert.load_torch(path)
  for content in (b"", b"not a checkpoint", pickle.dumps({"a": 1})):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth"):
      convert.load_torch(path)


def test_damaged_bytes_end_in_a_clear_refusal_or_in_arrays(tmp_path):
  path, rng = tmp_path / "weights.pth", np.random.default_rng(0)
  state = {"conv.weight": np.ones((2, 3), np.float32), "fc.bias": np.ones(4, "f")}
  convert.save_torch(path, state)
  pickled, whole = read_zip(path)[0], path.read_bytes()
  refused = 0
  for number in range(300):
    data = bytearray(pickled if number % 2 else whole)
    for place in rng.integers(0, len(data), 3):
      data[place] = rng.integers(256)
    if number % 2:
      write_zip(path, bytes(data), bytes(64))
    else:
      path.write_bytes(data)
    try:
      convert.load_torch(path)
    except ValueError as error:
      assert "weights.pth" in str(error)
      refused += 1
  assert 50 < refused < 300
  with pytest.raises(FileNotFoundError):
    convert.load_torch(tmp_path / "absent.pth")
