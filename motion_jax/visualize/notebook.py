"""Pictures in notebooks: what the `save_...` functions write, shown below a cell.

A notebook keeps its pictures as text, so PNG files become JPEG, a fifth of the size.
"""

import base64
import io
import os
import pathlib
import tempfile
from collections.abc import Callable

from PIL import Image


class Picture:
  """A JPEG picture or a GIF animation; the last one of a cell is shown.

  Attributes:
    data: the bytes of the file.
    kind: 'image/jpeg' or 'image/gif'.
  """

  def __init__(self, data: bytes, kind: str):
    self.data, self.kind = data, kind

  def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
    return {self.kind: base64.b64encode(self.data).decode(), "text/plain": repr(self)}

  def __repr__(self) -> str:
    with Image.open(io.BytesIO(self.data)) as image:
      return f"Picture({self.kind}, {image.width}x{image.height})"


def show_file(path: str | os.PathLike, *, quality: int = 65) -> Picture:
  """Reads a PNG or GIF file, such as those in the folder `figures` of a run.

  Args:
    path: the file.
    quality: of the JPEG that a PNG becomes, in [1, 95].
  """
  data = pathlib.Path(path).read_bytes()
  with Image.open(io.BytesIO(data)) as image:
    if image.format == "GIF":
      return Picture(data, "image/gif")
    buffer = io.BytesIO()
    options = dict(quality=quality, optimize=True, progressive=True)
    image.convert("RGB").save(buffer, format="JPEG", **options)
  return Picture(buffer.getvalue(), "image/jpeg")


def show(save: Callable, *args, quality: int = 65, **options) -> Picture:
  """Calls one of the `save_...` functions and reads what it wrote.

  Args:
    save: takes the path of a file first, as `clips.save_clip_grid` does.
    *args, **options: what it takes besides.
    quality: see `show_file`.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "picture.png"
    save(path, *args, **options)
    return show_file(path, quality=quality)
