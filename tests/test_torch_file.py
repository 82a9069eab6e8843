"""Files that PyTorch itself wrote are read without it."""

import golden_weights
import numpy as np
import pytest

from motion_jax.models import convert

# Written by torch 2.15 on a little-endian machine, in both formats of `torch.save`:
#
#   base, state = torch.arange(24.0), collections.OrderedDict()
#   state["module.backbone.conv1.a.weight"] = base.reshape(2, 3, 1, 2, 2)
#   norm = "module.backbone.conv1.a_bn"
#   state[f"{norm}.weight"] = torch.tensor([1.5, -2.0]).half()
#   state[f"{norm}.bias"] = torch.tensor([0.5, 3.0]).bfloat16()
#   state[f"{norm}.running_mean"] = base[5:7]
#   state[f"{norm}.running_var"] = base[1::12]
#   state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
#   state["module.head.out_joint.weight"] = torch.arange(6.0).reshape(2, 3).t()
#   state["module.head.out_joint.bias"] = torch.nn.Parameter(torch.arange(3.0))
#   torch.save(
#     {"epoch": 3, key: state, "optimizer_state": adam.state_dict(), "cfg": "a: 1"},
#     f"torch_{name}.pth", _use_new_zipfile_serialization=name == "zip")
#
# with key = 'model_state' in torch_zip.pth and 'state_dict' in torch_legacy.pth, and
# `adam` a torch.optim.Adam after a step.
BASE = np.arange(24, dtype="f4")
EXPECTED = {
  "backbone.conv1.a.weight": ("float32", BASE.reshape(2, 3, 1, 2, 2)),
  "backbone.conv1.a_bn.weight": ("float16", [1.5, -2]),
  "backbone.conv1.a_bn.bias": ("bfloat16", [0.5, 3]),
  "backbone.conv1.a_bn.running_mean": ("float32", [5, 6]),
  "backbone.conv1.a_bn.running_var": ("float32", [1, 13]),
  "backbone.conv1.a_bn.num_batches_tracked": ("int64", 7),
  "head.out_joint.weight": ("float32", [[0, 3], [1, 4], [2, 5]]),
  "head.out_joint.bias": ("float32", [0, 1, 2]),
}


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_a_checkpoint_of_pytorch_is_read(name):
  found = convert.load_torch(golden_weights.GOLDEN / f"torch_{name}.pth")
  assert list(found) == list(EXPECTED)
  for key, (kind, value) in EXPECTED.items():
    assert str(found[key].dtype) == kind
    np.testing.assert_array_equal(found[key].astype("f8"), value)
