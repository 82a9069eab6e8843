"""Draws the embedded data set: textured objects whose class is how they move.

Every video shows two objects over a background, all with dead-leaves textures (leaves
of all sizes that occlude each other), under a slowly drifting camera. The state of the
scene (places, sizes, angles, distance of the objects) has the same distribution in
every class; the class says only which part of it changes, and how. A single frame
therefore does not tell the class.
"""

from __future__ import annotations

import cv2
import numpy as np

CLASSES = (
  "rotate_clockwise",
  "rotate_counterclockwise",
  "grow",
  "shrink",
  "orbit",
  "sway",
  "bob",
  "approach",
  "separate",
  "fall",
)
SIZE = 128
FRAMES = 40
FPS = 25

_GROWTH = 1.9  # largest over smallest scale of an object
_DISTANCE = (34.0, 82.0)  # pixels between the objects' centres
_SWING = 17.0  # amplitude of sway and bob in pixels
_DROP = 52.0  # height of a fall in pixels
_TEXTURE = 60  # side of an object's texture in pixels
_DRIFT = 10  # largest camera movement in pixels
_SUBPIXEL = 3  # fraction bits of leaf coordinates


def render(rng: np.random.Generator, label: int) -> np.ndarray:
  """Draws one video of a class.

  Args:
    rng: draws textures, shapes, places and the course of the motion.
    label: index into `CLASSES`.

  Returns:
    [FRAMES, SIZE, SIZE, 3] uint8, RGB.
  """
  background = dead_leaves(rng, SIZE + 2 * _DRIFT)
  objects = [_object(rng) for _ in range(2)]
  states = _states(rng, CLASSES[label])
  heading = rng.uniform(0, 2 * np.pi)
  reach = rng.uniform(0.3, 1.0) * _DRIFT
  drift = np.linspace(-reach, reach, FRAMES)
  drift = np.stack([np.cos(heading) * drift, np.sin(heading) * drift], axis=1)
  video = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
  for t in range(FRAMES):
    shift = np.float32([[1, 0, drift[t, 0] - _DRIFT], [0, 1, drift[t, 1] - _DRIFT]])
    frame = cv2.warpAffine(background, shift, (SIZE, SIZE))
    for layer, state in zip(objects, states, strict=True):
      _paint(
        frame, layer, state["place"][t] + drift[t], state["scale"][t], state["angle"][t]
      )
    video[t] = frame
  return video


def dead_leaves(rng: np.random.Generator, size: int) -> np.ndarray:
  """Draws occluding leaves of all sizes (area falls with the square of frequency).

  Args:
    rng: draws places, sizes, shapes, colours and light.
    size: side of the image in pixels.

  Returns:
    [size, size, 3] uint8, RGB.
  """
  count = size * size // 36
  low, high = 1.8, size / 2.5
  u = (np.arange(count) + rng.uniform(size=count)) / count
  radius = 1 / np.sqrt(u / low**2 + (1 - u) / high**2)  # density ~ radius ** -3
  # Large leaves come early, roughly: otherwise they would hide most of the small ones.
  radius = radius[np.argsort(-np.log(radius) + rng.normal(0, 1.2, count))]
  cover = min(24, count)  # leave no bare ground
  radius[:cover] = size * rng.uniform(0.08, 0.35, cover)
  unit = 1 << _SUBPIXEL
  centre = (rng.uniform(0, size, (count, 2)) * unit).astype(int)
  squash = rng.uniform(0.35, 1.0, count)
  axes = (np.stack([radius, radius * squash], axis=1) * unit + 0.5).astype(int)
  angle = rng.uniform(0, 180, count)
  kind = rng.integers(0, 3, count)
  colour = _palette(rng, count)
  image = np.empty((size, size, 3), np.uint8)
  image[:] = colour[0]
  corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
  angle_rad = np.deg2rad(angle)
  turn = np.stack(
    [np.cos(angle_rad), -np.sin(angle_rad), np.sin(angle_rad), np.cos(angle_rad)], 1
  ).reshape(count, 1, 2, 2)
  boxes = (turn @ (corners * axes[:, None])[..., None])[..., 0] + centre[:, None]
  boxes[kind == 2, 3] = boxes[kind == 2, 2]  # triangles
  boxes = boxes.round().astype(np.int32)
  for i, fill in enumerate(colour.tolist()):
    if kind[i] == 0:
      cv2.ellipse(
        image,
        centre[i].tolist(),
        axes[i].tolist(),
        angle[i],
        0,
        360,
        fill,
        -1,
        cv2.LINE_AA,
        _SUBPIXEL,
      )
    else:
      cv2.fillConvexPoly(image, boxes[i], fill, cv2.LINE_AA, _SUBPIXEL)
  return _light(rng, image)


def _palette(rng: np.random.Generator, count: int) -> np.ndarray:
  """Draws [count, 3] leaf colours around a few base colours."""
  base = rng.uniform(0, 255, (rng.integers(4, 9), 3))
  base += rng.uniform(0.1, 0.6) * (base.mean(axis=1, keepdims=True) - base)
  colour = base[rng.integers(0, len(base), count)] + rng.normal(0, 20, (count, 3))
  return colour.clip(0, 255).astype(np.uint8)


def _light(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  """Adds uneven light and fine grain."""
  size = image.shape[0]
  light = rng.uniform(0.65, 1.2, (3, 3, 1)) * rng.uniform(0.93, 1.07, (3, 3, 3))
  light = cv2.resize(
    light.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
  )
  grain = rng.normal(0, 2, (size, size, 1)).astype(np.float32)
  return (image * light + grain).clip(0, 255).astype(np.uint8)


def _object(rng: np.random.Generator) -> np.ndarray:
  """Draws a textured shape: [60, 60, 4] uint8, colour times coverage, and coverage."""
  theta = np.linspace(0, 2 * np.pi, 48, endpoint=False)
  outline = np.ones_like(theta)
  for order in (2, 3, 4, 5):
    weight = rng.uniform(0, 0.55 / order)
    outline += weight * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
  outline *= (_TEXTURE / 2 - 1) / outline.max()
  points = np.stack([np.cos(theta), np.sin(theta)], axis=1) * outline[:, None]
  points = ((points + _TEXTURE / 2) * (1 << _SUBPIXEL)).round().astype(np.int32)
  cover = np.zeros((_TEXTURE, _TEXTURE), np.uint8)
  cv2.fillPoly(cover, [points], 255, cv2.LINE_AA, _SUBPIXEL)
  colour = dead_leaves(rng, _TEXTURE) * (cover[..., None] / np.float32(255))
  return np.dstack([colour.astype(np.uint8), cover])


def _states(rng: np.random.Generator, motion: str) -> list[dict[str, np.ndarray]]:
  """Draws place [FRAMES, 2] (x, y), scale and angle [FRAMES] of the two objects.

  Each quantity of the scene is a function of a phase. The phase runs in the class that
  is named after its motion; in all others it stands still at a random point. So its
  distribution over random frames does not depend on the class.
  """
  t = np.linspace(0, 1, FRAMES)
  still = np.zeros(FRAMES)
  side = rng.choice([-1, 1])

  def phase(course: np.ndarray | None) -> np.ndarray:
    point = rng.uniform()
    return point + still if course is None else course

  growth = phase({"grow": t, "shrink": 1 - t}.get(motion))
  gap = phase({"separate": t, "approach": 1 - t}.get(motion))
  fall = phase(t if motion == "fall" else None)
  swings = rng.uniform(1.4, 2.4)
  sway, bob, around = rng.uniform(0, 2 * np.pi, 3)
  swing_x = np.sin(sway + 2 * np.pi * swings * t * (motion == "sway"))
  swing_y = np.sin(bob + 2 * np.pi * swings * t * (motion == "bob"))
  around = around + side * rng.uniform(1.2, 2.0) * np.pi * t * (motion == "orbit")
  turn = {"rotate_clockwise": 1, "rotate_counterclockwise": -1}.get(motion, 0)
  turn = turn * rng.uniform(1.2, 2.2) * np.pi * t
  middle = SIZE / 2 + rng.uniform(-10, 10, 2)
  x = middle[0] + _SWING * swing_x
  y = middle[1] + _SWING * swing_y + _DROP * (fall**2 - 1 / 3)
  half = (_DISTANCE[0] + (_DISTANCE[1] - _DISTANCE[0]) * gap) / 2
  states = []
  for sign in (-1, 1):
    place = [x + sign * half * np.cos(around), y + sign * half * np.sin(around)]
    scale = rng.uniform(0.7, 0.95) * _GROWTH ** (growth - 0.5)
    angle = rng.uniform(0, 2 * np.pi) + turn
    states.append({"place": np.stack(place, 1), "scale": scale, "angle": angle})
  return states


def _paint(
  frame: np.ndarray, layer: np.ndarray, place: np.ndarray, scale: float, angle: float
) -> None:
  """Draws a layer into a frame, in place; positive angles turn clockwise."""
  reach = scale * _TEXTURE / 2 + 1
  low = np.floor(place - reach).astype(int).clip(0, SIZE)
  high = np.ceil(place + reach).astype(int).clip(0, SIZE)
  if (high <= low).any():
    return
  cos, sin = scale * np.cos(angle), scale * np.sin(angle)
  linear = np.array([[cos, -sin], [sin, cos]])
  offset = place - low - linear @ np.full(2, (_TEXTURE - 1) / 2)
  matrix = np.column_stack([linear, offset])
  patch = cv2.warpAffine(layer, matrix, tuple((high - low).tolist()))
  area = frame[low[1] : high[1], low[0] : high[0]]
  shown = cv2.cvtColor(255 - patch[..., 3], cv2.COLOR_GRAY2RGB)
  below = cv2.multiply(area, shown, scale=1 / 255)
  area[:] = cv2.add(below, cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB))
