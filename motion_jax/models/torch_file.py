"""Reads and writes PyTorch checkpoint files without PyTorch.

The reader never runs code from the file: tensors are rebuilt by our own functions and
every other class that a pickle names becomes an inert placeholder.
"""

import collections
import io
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np

_STORAGES = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
# Where training programs keep the weights inside a checkpoint, most specific first.
_NESTED = ("model_state", "state_dict", "model", "net_state_dict")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def load_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the weights of a PyTorch checkpoint.

  Args:
    path: file written by `torch.save`, in the zip format or the one before
      PyTorch 1.6. The weights may be the whole file or stand under `model_state`
      (MoSI), `state_dict` (DPC), `model` or `net_state_dict`.

  Returns:
    Arrays by name, with a leading `module.` of parallel training removed.

  Raises:
    OSError: if the file cannot be opened.
    ValueError: if it is no PyTorch checkpoint or holds no named tensors.
  """
  open(path, "rb").close()  # tells of a missing file as the system does
  try:
    content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    arrays = _named_arrays(content)
  except Exception as error:  # a damaged pickle can end in any of them
    raise ValueError(f"{path} is not a readable PyTorch checkpoint: {error}") from error
  if not arrays:
    raise ValueError(
      f"{path} holds no named tensors; expected a state_dict, alone or under one of"
      f" {', '.join(_NESTED)}"
    )
  return arrays


def save_torch(path: str | os.PathLike, state: dict[str, np.ndarray]) -> None:
  """Writes arrays as a state_dict that `torch.load` reads.

  Args:
    path: file to write.
    state: float32 arrays by name.
  """
  with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
    file.writestr("archive/data.pkl", _pickle_state(state))
    file.writestr("archive/byteorder", "little")
    for index, array in enumerate(state.values()):
      data = np.ascontiguousarray(array, "<f4").tobytes()
      file.writestr(f"archive/data/{index}", data)
    file.writestr("archive/version", "3\n")


def _named_arrays(content):
  for name in _NESTED:
    if isinstance(content, dict) and isinstance(content.get(name), dict):
      content = content[name]
      break
  if not isinstance(content, dict):
    return {}
  return {
    name.removeprefix("module."): value.array()
    for name, value in content.items()
    if isinstance(name, str) and isinstance(value, _Tensor)
  }


class _Tensor:
  """A view into a storage whose bytes may be read later."""

  def __init__(self, storage, offset, shape, strides, *_):
    self.view = (storage, offset, tuple(shape), tuple(strides))

  def array(self):
    storage, offset, shape, strides = self.view
    data = storage.data
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 in shape:
      return np.zeros(shape, data.dtype)
    if min((offset, *shape, *strides)) < 0 or last >= data.size:
      raise ValueError(f"a tensor of shape {shape} reaches outside its storage")
    step = data.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(
      data[offset:], shape, [step * s for s in strides]
    )
    return view.copy()


class _Storage:
  def __init__(self, dtype):
    self.dtype = dtype
    self.data = None


class _Placeholder(dict):
  """Stands for any object that is not a tensor; keeps nothing, runs nothing."""

  def __init__(self, *_, **__):
    super().__init__()

  def __setstate__(self, state):
    pass

  def append(self, item):
    pass

  def extend(self, items):
    pass


class _Unpickler(pickle.Unpickler):
  """Knows tensors, ordered dictionaries and nothing else."""

  def __init__(self, file, open_storage):
    super().__init__(file, encoding="latin-1")
    self._open = open_storage
    self.storages = {}

  def find_class(self, module, name):
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
      return _Tensor
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
      return lambda tensor, *_: tensor
    if module == "torch" and name in _STORAGES:
      return _STORAGES[name]
    return _Placeholder

  def persistent_load(self, pid):
    kind, dtype, key, _, count = pid[:5]
    if kind != "storage" or not isinstance(dtype, np.dtype):
      raise pickle.UnpicklingError(f"storage of unsupported type {pid[:2]}")
    if len(pid) > 5 and pid[5] is not None:
      raise pickle.UnpicklingError("views of storages are not supported")
    if key not in self.storages:
      self.storages[key] = _Storage(dtype)
      self._open(self.storages[key], key, count)
    return self.storages[key]


def _read_zip(path):
  with zipfile.ZipFile(path) as file:
    main = next((n for n in file.namelist() if n.endswith("/data.pkl")), None)
    if main is None:
      raise ValueError(f"{path} is a zip file without data.pkl, not from torch.save")
    folder = main.removesuffix("data.pkl")

    def open_storage(storage, key, _):
      data = file.read(f"{folder}data/{key}")
      storage.data = np.frombuffer(data, storage.dtype)

    return _Unpickler(io.BytesIO(file.read(main)), open_storage).load()


def _read_legacy(path):
  with open(path, "rb") as file:
    plain = [_Unpickler(file, None).load() for _ in range(3)]
    if plain[0] != _LEGACY_MAGIC:
      raise ValueError(f"{path} was not written by torch.save")
    unpickler = _Unpickler(file, lambda *_: None)
    content = unpickler.load()
    for key in _Unpickler(file, None).load():
      storage = unpickler.storages[key]
      count = int.from_bytes(file.read(8), "little")
      data = file.read(count * storage.dtype.itemsize)
      storage.data = np.frombuffer(data, storage.dtype)
    return content


def _pickle_state(state):
  """The pickle of an OrderedDict of float32 tensors, written opcode by opcode.

  `pickle.dump` could not name torch's functions without importing torch.
  """
  ordered = b"ccollections\nOrderedDict\n)R"
  parts = [b"\x80\x02", ordered, b"("]
  for index, (name, array) in enumerate(state.items()):
    strides = [s // array.itemsize for s in np.ascontiguousarray(array).strides]
    parts += [
      _text(name),
      b"ctorch._utils\n_rebuild_tensor_v2\n((",
      _text("storage"),
      b"ctorch\nFloatStorage\n",
      _text(str(index)),
      _text("cpu"),
      _integer(array.size),
      b"tQ",
      _integer(0),
      _integers(array.shape),
      _integers(strides),
      b"\x89",
      ordered,
      b"tR",
    ]
  return b"".join([*parts, b"u."])


def _text(value):
  data = value.encode()
  return b"X" + len(data).to_bytes(4, "little") + data


def _integer(value):
  return b"\x8a\x08" + int(value).to_bytes(8, "little", signed=True)


def _integers(values):
  return b"(" + b"".join(_integer(v) for v in values) + b"t"
