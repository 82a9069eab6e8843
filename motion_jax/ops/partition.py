"""The three partitions of a frame in MAS (Wang et al., CVPR 2019, figure 2).

28 regions: 16 blocks of a 4x4 grid in rows, 4 concentric square rings from the centre
outwards, 8 triangles of four quadrants (a pixel on a diagonal belongs to both of its
neighbours). A frame is square, its side S a multiple of 16.
"""

import functools

import numpy as np

PATTERNS = ("grid", "rings", "triangles")
REGIONS = {"grid": slice(0, 16), "rings": slice(16, 20), "triangles": slice(20, 28)}


@functools.cache
def masks(size: int) -> np.ndarray:
  """Which pixels belong to which region.

  Args:
    size: side S of the frame in pixels, a multiple of 16.

  Returns:
    [28, S, S] bool.

  Raises:
    ValueError: for another size.
  """
  if size < 16 or size % 16:
    raise ValueError(
      f"the patterns need a frame whose side is a multiple of 16, found {size}; "
      f"try {max(16, round(size / 16) * 16)}"
    )
  half, eighth = size // 2, size // 8
  row, column = np.mgrid[:size, :size]
  block = row // (size // 4) * 4 + column // (size // 4)
  depth = np.minimum(np.minimum(row, column), size - 1 - np.maximum(row, column))
  ring = 3 - np.minimum(depth // eighth, 3)
  # 1: above, 0: on, -1: below the falling (rising) diagonal of a quadrant.
  falling = np.sign(column % half - row % half)
  rising = np.sign(row % half + column % half - (half - 1))
  quadrant = row // half * 2 + column // half
  triangles = [
    (quadrant == place) & (side * diagonal >= 0)
    for place, diagonal in enumerate((falling, rising, rising, falling))
    for side in (-1, 1)
  ]
  regions = [block == index for index in range(16)]
  regions += [ring == index for index in range(4)]
  result = np.stack(regions + triangles)
  result.setflags(write=False)
  return result


def by_pattern(size: int) -> dict[str, np.ndarray]:
  """Returns the masks [R, S, S] bool of each of the `PATTERNS`; see `masks`."""
  return {name: masks(size)[region] for name, region in REGIONS.items()}


@functools.cache
def cells(size: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
  """The regions as sums of small cells that do not depend on the pattern.

  64 squares of an 8x8 grid, and 32 halves, with their diagonal, of the squares that a
  triangle's edge cuts.

  Args:
    size: side S of the frame in pixels, a multiple of 16.

  Returns:
    pixels: two int arrays [64, P] and [32, P'], the pixels of each cell as positions
      in the flattened frame.
    members: [28, 96] bool, the cells that make up each region without overlap.
  """
  side = size // 8
  regions = masks(size).reshape(28, -1)
  place = np.arange(size * size).reshape(8, side, 8, side).swapaxes(1, 2)
  squares = place.reshape(64, -1)
  touched = regions[:, squares]  # [28, 64, P]
  whole = touched.all(-1)
  cut = np.argwhere(touched.any(-1) & ~whole)
  halves = np.stack([squares[cell][touched[region, cell]] for region, cell in cut])
  members = np.concatenate([whole, np.zeros((28, len(cut)), bool)], axis=1)
  for index, (region, _) in enumerate(cut):
    members[region, 64 + index] = True
  return (squares, halves), members
