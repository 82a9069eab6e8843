"""Whether a network looks where things move: the share of a map in moving pixels.

Contract: maps are [B, T, H, W], 0 or more, at the size of the clip; speed is the length
of the optical flow, [B, T, H, W] in pixels per frame.
"""

from collections.abc import Mapping

import numpy as np


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


def mass_inside(maps: np.ndarray, chosen: np.ndarray, moves: np.ndarray) -> np.ndarray:
  """Share of every map's sum over moving frames that lies in chosen pixels.

  Args:
    maps: [B, T, H, W], 0 or more.
    chosen: bool [B, T, H, W].
    moves: bool [B, T].

  Returns:
    [B] float64 in [0, 1]; NaN for maps that are zero in all moving frames.
  """
  maps = np.asarray(maps, np.float64) * moves[..., None, None]
  total, axes = maps.sum((1, 2, 3)), (1, 2, 3)
  inside = np.sum(maps, axes, where=chosen)
  return np.divide(inside, total, out=np.full(len(maps), np.nan), where=total > 0)


class MotionShares:
  """Collects the shares of several networks' maps over clips, batch by batch.

  Args:
    share, least: see `moving_pixels`.
  """

  def __init__(self, *, share: float = 0.2, least: float = 0.1):
    self._options = dict(share=share, least=least)
    self._inside: list[dict[str, float]] = []
    self._chosen: list[tuple[np.ndarray, np.ndarray]] = []
    self._sums: dict[str, np.ndarray | float] = {}
    self._shape: tuple[int, ...] = ()
    self._counts = {"still": 0, "empty": 0}

  def add(self, maps: Mapping[str, np.ndarray], speed: np.ndarray) -> None:
    """Takes the maps of every network on a batch of clips, and the clips' speed.

    Clips that are still, and those on which a network's map is zero everywhere, are
    counted and left out for all networks.
    """
    chosen, moves = moving_pixels(speed, **self._options)
    inside = {n: mass_inside(values, chosen, moves) for n, values in maps.items()}
    self._shape = chosen.shape[1:]
    for row in range(len(chosen)):
      shares = {name: float(values[row]) for name, values in inside.items()}
      if not moves[row].any():
        self._counts["still"] += 1
      elif np.isnan([*shares.values()]).any():
        self._counts["empty"] += 1
      else:
        self._inside.append(shares)
        self._chosen.append((np.packbits(chosen[row]), moves[row]))
        for name, values in maps.items():
          unit = np.asarray(values[row], np.float64) / np.sum(values[row], dtype=float)
          self._sums[name] = self._sums.get(name, 0.0) + unit

  def result(self) -> dict[str, float]:
    """Means over the clips that count.

    Returns:
      clips, still_clips, empty_maps: how many count, and how many do not. For every
      network '<name>': the mean share; '<name>/position': the same for the network's
      mean map over all clips, which knows the place in the picture but not the clip;
      and '<name>/gain': mean of the difference, '<name>/gain_error' its standard
      error.
    """
    count = len(self._inside)
    values: dict[str, float] = {
      "clips": count,
      "still_clips": self._counts["still"],
      "empty_maps": self._counts["empty"],
    }
    for name, total in self._sums.items():
      mean_map = (total / count)[None]
      own = np.asarray([shares[name] for shares in self._inside])
      place = np.asarray([mass_inside(mean_map, *m)[0] for m in self._masks()])
      gain = own - place
      values[name] = float(own.mean())
      values[f"{name}/position"] = float(place.mean())
      values[f"{name}/gain"] = float(gain.mean())
      values[f"{name}/gain_error"] = float(gain.std() / np.sqrt(count))
    return values

  def _masks(self):
    """(chosen [1, T, H, W], moves [1, T]) of every clip that counts."""
    size = int(np.prod(self._shape))
    for bits, moves in self._chosen:
      chosen = np.unpackbits(bits, count=size).astype(bool)
      yield chosen.reshape(1, *self._shape), moves[None]
