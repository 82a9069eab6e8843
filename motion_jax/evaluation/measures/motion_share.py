"""Whether a network looks where things move: the share of a map in moving pixels.

Contract: maps are [B, T, H, W], 0 or more, at the size of the clip; speed is the length
of the optical flow, [B, T, H, W] in pixels per frame; which pixels move, `chosen`, is
bool [B, T, H, W], and which frames have such pixels, `moves`, bool [B, T].
"""

from collections.abc import Mapping

import cv2
import numpy as np

_LEAST_DIFFERENCE = 25  # of a colour from the background's, of 255
_LEAST_AREA = 0.003  # of a frame; what is smaller is noise
_LEAST_PART = 0.25  # of the largest thing: two arms move, and the body between does not
_MARGIN = 1 / 28  # of a frame's side, that a mask is wider than what moves


def moving_pixels(
  speed: np.ndarray, *, share: float = 0.2, least: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
  """The fastest pixels of every frame.

  Of every frame as many: the time between the frames of a clip varies where its rate
  does not divide the video's, and with it their speed. Of a still frame none.

  Args:
    speed: [B, T, H, W], length of the optical flow in pixels per frame.
    share: of the pixels of a frame that are chosen, in (0, 1); a map that is the same
      everywhere has just this share of its mass in them.
    least: mean speed of the fastest pixels below which a frame counts as still.

  Returns:
    chosen: bool [B, T, H, W].
    moves: bool [B, T], False for still frames.
  """
  rows = np.asarray(speed, np.float32).reshape(*speed.shape[:2], -1)
  count = max(1, round(share * rows.shape[2]))
  fastest = np.argpartition(rows, -count, axis=2)[..., -count:]
  chosen = np.zeros(rows.shape, bool)
  np.put_along_axis(chosen, fastest, True, axis=2)
  moves = np.take_along_axis(rows, fastest, axis=2).mean(2) >= least
  chosen &= moves[..., None]
  return chosen.reshape(speed.shape), moves


def unlike_background(
  clips: np.ndarray, background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What moves before a camera that stands still: the larger things of every frame.

  Args:
    clips: [B, T, H, W, 3] uint8.
    background: [B, H, W, 3] uint8, the median of the whole video's frames.

  Returns:
    chosen: bool [B, T, H, W], what differs from the background, a little widened.
    moves: bool [B, T], False where nothing does.
  """
  chosen = np.zeros(clips.shape[:-1], bool)
  side = min(clips.shape[2:4])
  for row, frame in np.ndindex(chosen.shape[:2]):
    difference = cv2.absdiff(clips[row, frame], background[row]).max(-1)
    differs = (cv2.medianBlur(difference, 3) >= _LEAST_DIFFERENCE).astype(np.uint8)
    differs = cv2.morphologyEx(differs, cv2.MORPH_CLOSE, _disc(side * _MARGIN))
    _, parts, about, _ = cv2.connectedComponentsWithStats(differs)
    areas = about[:, cv2.CC_STAT_AREA] * (np.arange(len(about)) > 0)
    least = max(_LEAST_AREA * differs.size, _LEAST_PART * areas.max())
    wanted = (areas >= least)[parts].astype(np.uint8)
    chosen[row, frame] = cv2.dilate(wanted, _disc(side * _MARGIN / 2))
  return chosen, chosen.any((2, 3))


def mass_inside(maps: np.ndarray, chosen: np.ndarray, moves: np.ndarray) -> np.ndarray:
  """Share of every map's sum over moving frames that lies in chosen pixels.

  Args:
    maps: [B, T, H, W], 0 or more.
    chosen: bool [B, T, H, W].
    moves: bool [B, T].

  Returns:
    [B] float64 in [0, 1]; NaN for maps that are zero in all moving frames.
  """
  inside, whole = _masses(maps, chosen, moves)
  return np.divide(inside, whole, out=np.full(len(maps), np.nan), where=whole > 0)


def _masses(maps, chosen, moves):
  """Sums [B] over moving frames: of the chosen pixels, and of all."""
  maps = np.asarray(maps, np.float64) * moves[..., None, None]
  return np.sum(maps, (1, 2, 3), where=chosen), maps.sum((1, 2, 3))


def points_inside(
  maps: np.ndarray, chosen: np.ndarray, moves: np.ndarray
) -> np.ndarray:
  """The pointing game (Zhang et al., IJCV 2018): is the largest value in chosen pixels?

  Args:
    maps, chosen, moves: as for `mass_inside`.

  Returns:
    [B] float64, the share of the moving frames in which it is; of several places with
    the largest value each counts as its part. NaN where no frame moves.
  """
  largest = maps == np.asarray(maps).max((2, 3), keepdims=True)
  right = (largest & chosen).sum((2, 3)) / largest.sum((2, 3))
  count = moves.sum(1)
  sums = np.where(moves, right, 0).sum(1)
  return np.divide(sums, count, out=np.full(len(maps), np.nan), where=count > 0)


class MotionShares:
  """Collects the shares of several networks' maps over clips, batch by batch."""

  def __init__(self):
    self._inside: list[dict[str, float]] = []
    self._points: list[dict[str, float]] = []
    self._masses: list[dict[str, float]] = []  # in moving frames, of 1 in all
    self._chosen: list[tuple[np.ndarray, np.ndarray]] = []
    self._sums: dict[str, np.ndarray | float] = {}
    self._shape: tuple[int, ...] = ()
    self._counts = {"still": 0, "empty": 0}

  def add(
    self, maps: Mapping[str, np.ndarray], chosen: np.ndarray, moves: np.ndarray
  ) -> None:
    """Takes the maps of every network on a batch of clips, and what moves in them.

    Clips that are still, and those on which a network's map is zero everywhere, are
    counted and left out for all networks.
    """
    inside = {n: mass_inside(values, chosen, moves) for n, values in maps.items()}
    points = {n: points_inside(values, chosen, moves) for n, values in maps.items()}
    self._shape = chosen.shape[1:]
    for row in range(len(chosen)):
      shares = {name: float(values[row]) for name, values in inside.items()}
      if not moves[row].any():
        self._counts["still"] += 1
      elif np.isnan([*shares.values()]).any():
        self._counts["empty"] += 1
      else:
        self._inside.append(shares)
        self._points.append({name: float(x[row]) for name, x in points.items()})
        self._masses.append(masses := {})
        self._chosen.append((np.packbits(chosen[row]), moves[row]))
        for name, values in maps.items():
          unit = np.asarray(values[row], np.float64) / np.sum(values[row], dtype=float)
          self._sums[name] = self._sums.get(name, 0.0) + unit
          masses[name] = float(unit[moves[row]].sum())

  def result(self) -> dict[str, float]:
    """Means over the clips that count.

    Returns:
      clips, still_clips, empty_maps: how many count, and how many do not. For every
      network '<name>': the mean share, and '<name>/pointing': see `points_inside`. Of
      two clips or more also '<name>/position': the share of the network's mean map over
      all other clips, which knows the place in the picture but not the clip;
      '<name>/gain': mean of the difference, '<name>/gain_error' its standard error.
    """
    count = len(self._inside)
    values: dict[str, float] = {
      "clips": count,
      "still_clips": self._counts["still"],
      "empty_maps": self._counts["empty"],
    }
    for name, total in self._sums.items():
      own = np.asarray([shares[name] for shares in self._inside])
      values[name] = float(own.mean())
      values[f"{name}/pointing"] = float(np.mean([x[name] for x in self._points]))
      if count < 2:
        continue
      inside, whole = np.stack([_masses(total[None], *m) for m in self._masks()], 1)
      mass = np.asarray([masses[name] for masses in self._masses])
      place = (inside[:, 0] - own * mass) / (whole[:, 0] - mass)
      gain = own - place
      values[f"{name}/position"] = float(place.mean())
      values[f"{name}/gain"] = float(gain.mean())
      values[f"{name}/gain_error"] = float(gain.std(ddof=1) / np.sqrt(count))
    return values

  def _masks(self):
    """(chosen [1, T, H, W], moves [1, T]) of every clip that counts."""
    size = int(np.prod(self._shape))
    for bits, moves in self._chosen:
      chosen = np.unpackbits(bits, count=size).astype(bool)
      yield chosen.reshape(1, *self._shape), moves[None]


def _disc(radius: float) -> np.ndarray:
  side = 2 * max(1, round(radius)) + 1
  return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
