"""Augmentation of video on the device.

Contract: video is float32 [..., T, H, W, 3], RGB, in [0, 1]; results are clipped to
[0, 1] (`normalize` leaves that range). Factors have the shape [..., T] or broadcast
to it, so a scalar or [..., 1] changes all frames of a clip alike. Draws and their
application are separate functions: the second is deterministic.

  >>> video = jnp.full((4, 16, 24, 3), 0.5)
  >>> jitter = draw_jitter(jax.random.key(0), (4,), per_frame=False)
  >>> apply_jitter(video, jitter).shape
  (4, 16, 24, 3)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.ops import products

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

Planes = tuple[jax.Array, jax.Array, jax.Array]


class JitterFactors(NamedTuple):
  """One draw of colour jitter.

  Fields:
    factors: [..., 4, T], rows brightness, contrast, saturation (1 = unchanged) and
      hue (a shift in turns, 0 = unchanged).
    order: int32 [..., 4], the rows in order of application.
    grayscale: bool [...], applied before everything else.
  """

  factors: jax.Array
  order: jax.Array
  grayscale: jax.Array


def to_grayscale(video: jax.Array, chosen: jax.Array | None = None) -> jax.Array:
  """Replaces all channels by the luma 0.299 R + 0.587 G + 0.114 B.

  Args:
    video: [..., T, H, W, 3].
    chosen: bool [...], the clips to change; all if None.

  Returns:
    [..., T, H, W, 3].

  >>> red = jnp.array([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
  >>> print(to_grayscale(red).ravel())
  [0.299 0.299 0.299]
  """
  luma = _luma(_split(video))[..., None]
  if chosen is not None:
    luma = jnp.where(_per_clip(chosen), luma, video)
  return jnp.broadcast_to(luma, video.shape)


def draw_jitter(
  key: jax.Array,
  shape: tuple[int, ...],
  *,
  brightness: float = 0.5,
  contrast: float = 0.5,
  saturation: float = 0.5,
  hue: float = 0.25,
  grayscale: float = 0.3,
  per_frame: bool = True,
  strength: float | jax.Array = 1.0,
  probability: float = 1.0,
) -> JitterFactors:
  """Draws colour jitter; the defaults are MoSI's (Huang et al., CVPR 2021, sec. 4.1).

  Args:
    key: PRNG key.
    shape: (..., T), the shape of the video up to its frames.
    brightness, contrast, saturation: factors are uniform in [1 - b, 1 + b]; [0, 1].
    hue: shifts are uniform in [-hue, hue] turns; in [0, 0.5].
    grayscale: probability, decided once per clip.
    per_frame: independent factors for each frame, or one per clip. The order of the
      four operations is always drawn once per clip.
    strength: in [0, 1], may be traced; scales all ranges and the probability of
      grayscale (0 changes nothing).
    probability: of a clip to be jittered at all; grayscale does not depend on it.

  Returns:
    JitterFactors with leading shape `shape[:-1]`.
  """
  *clips, frames = shape
  columns = frames if per_frame else 1
  # One draw for everything compiles faster than several.
  unit = jax.random.uniform(key, (*clips, 4 * columns + 5))
  factor_unit = unit[..., : 4 * columns].reshape(*clips, 4, columns)
  spread = np.array([[brightness], [contrast], [saturation], [hue]], np.float32)
  neutral = np.array([[1], [1], [1], [0]], np.float32)
  factors = neutral + strength * spread * (2 * factor_unit - 1)
  if probability < 1:
    jittered = jax.random.bernoulli(jax.random.fold_in(key, 1), probability, clips)
    factors = jnp.where(jittered[..., None, None], factors, neutral)
  return JitterFactors(
    factors=jnp.broadcast_to(factors, (*clips, 4, frames)),
    order=jnp.argsort(unit[..., -5:-1], axis=-1).astype(jnp.int32),
    grayscale=unit[..., -1] < strength * grayscale,
  )


def apply_jitter(video: jax.Array, jitter: JitterFactors) -> jax.Array:
  """Applies one draw of colour jitter to [..., T, H, W, 3] video."""
  return jnp.stack(jitter_planes(_split(video), jitter), axis=-1)


def jitter_planes(planes: Planes, jitter: JitterFactors) -> Planes:
  """`apply_jitter` on separate R, G, B planes [..., T, H, W], the faster layout.

  Brightness, contrast and saturation are one blend with black, the mean luma or the
  luma, so four rounds of "blend or turn the hue" serve every order without branches.
  """
  gray = jitter.grayscale[..., None, None, None]
  luma = _luma(planes)
  planes = tuple(jnp.where(gray, luma, plane) for plane in planes)

  def blend_or_turn(index, planes, mean):
    operation = jnp.take(jitter.order, index, axis=-1)[..., None, None]
    factor = jnp.take_along_axis(jitter.factors, operation, axis=-2)[..., 0, :]
    operation, factor = operation[..., None], factor[..., None, None]
    other = jnp.where(operation == SATURATION, 1 - factor, 0) * _luma(planes)
    other += jnp.where(operation == CONTRAST, (1 - factor) * mean, 0)
    turned = _turn_hue(planes, factor)
    return tuple(
      jnp.where(operation == HUE, hue, jnp.clip(factor * plane + other, 0, 1))
      for hue, plane in zip(turned, planes, strict=True)
    )

  # A loop, not four copies: XLA on CPU would fuse the rounds and repeat their work
  # for every plane (100 instead of 45 ms for 9 clips of 16x112x112).
  def rounds(planes):
    def apply_round(index, planes):
      return blend_or_turn(index, planes, _brightness(planes))

    return jax.lax.fori_loop(0, 4, apply_round, planes)

  def rounds_with_means(planes):
    """A TPU finds the mean of the next round while it writes the planes of this one.

    2.8 instead of 5.8 million cycles of a v5e for 90 clips; a CPU makes them twice.
    """

    def apply_round(index, state):
      planes = blend_or_turn(index, *state)
      return planes, _brightness(planes)

    return jax.lax.fori_loop(0, 4, apply_round, (planes, _brightness(planes)))[0]

  return jax.lax.platform_dependent(planes, tpu=rounds_with_means, default=rounds)


def draw_blur(
  key: jax.Array,
  clips: tuple[int, ...],
  *,
  sigma: tuple[float, float] = (0.1, 2.0),
  probability: float = 0.5,
) -> jax.Array:
  """Draws the blur of contrastive methods (Chen et al., ICML 2020, appendix A).

  Args:
    key: PRNG key.
    clips: shape of the video before its frames.
    sigma: range of the standard deviation in pixels, uniform.
    probability: of a clip to be blurred.

  Returns:
    float32 [*clips], standard deviations in pixels; 0 is no blur.
  """
  unit = jax.random.uniform(key, (2, *clips))
  drawn = sigma[0] + (sigma[1] - sigma[0]) * unit[0]
  return jnp.where(unit[1] < probability, drawn, 0)


def gaussian_blur(video: jax.Array, sigma: jax.Array, *, width: int = 13) -> jax.Array:
  """Blurs all frames of a clip alike; borders mirror without the edge pixel.

  Args:
    video: [..., T, H, W, 3].
    sigma: [...], standard deviations in pixels; 0 changes nothing.
    width: taps of the kernel, odd and less than twice the shorter side; 13 reach 3
      standard deviations of 2 pixels.

  Returns:
    [..., T, H, W, 3].
  """
  height, columns = video.shape[-3:-1]
  rows = _blur_matrix(sigma, height, width)
  video = products.einsum("...ih,...thwc->...tiwc", rows, video)
  columns = _blur_matrix(sigma, columns, width)
  return products.einsum("...jw,...tiwc->...tijc", columns, video)


def normalize(video: jax.Array, mean, std) -> jax.Array:
  """Returns (video - mean) / std; `mean` and `std` are scalars or one per channel.

  >>> print(normalize(jnp.full((1, 1, 1, 3), 0.9), 0.45, 0.225).ravel())
  [2. 2. 2.]
  """
  mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
  return (video - mean) / std


def _per_clip(chosen: jax.Array) -> jax.Array:
  return jnp.asarray(chosen)[..., None, None, None, None]


def _split(video: jax.Array) -> Planes:
  return video[..., 0], video[..., 1], video[..., 2]


def _luma(planes: Planes) -> jax.Array:
  red, green, blue = planes
  return 0.299 * red + 0.587 * green + 0.114 * blue


def _brightness(planes: Planes) -> jax.Array:
  return _luma(planes).mean((-1, -2), keepdims=True)


def _turn_hue(planes: Planes, shift: jax.Array) -> Planes:
  """HSV with hue in sixths; back to RGB through the three tent functions of hue."""
  red, green, blue = planes
  high = jnp.maximum(jnp.maximum(red, green), blue)
  low = jnp.minimum(jnp.minimum(red, green), blue)
  chroma = high - low
  scale = 1 / jnp.where(chroma > 0, chroma, 1)
  hue = jnp.where(high == green, 2 + (blue - red) * scale, 4 + (red - green) * scale)
  hue = jnp.where(high == red, (green - blue) * scale, hue) + 6 * shift
  hue -= 6 * jnp.floor(hue / 6)
  return (
    low + chroma * jnp.clip(jnp.abs(hue - 3) - 1, 0, 1),
    low + chroma * jnp.clip(2 - jnp.abs(hue - 2), 0, 1),
    low + chroma * jnp.clip(2 - jnp.abs(hue - 4), 0, 1),
  )


def _blur_matrix(sigma, size, width):
  """[..., size, size]: the kernel around every pixel, and its part beyond a border."""
  sigma = jnp.maximum(jnp.asarray(sigma), 1e-2)[..., None, None]  # 1e-2: identity

  def kernel(distance):
    value = jnp.exp(-0.5 * (distance / sigma) ** 2)
    return jnp.where(abs(distance) <= width // 2, value, 0)

  source = np.arange(size)
  target = source[:, None]
  weights = kernel(target - source)
  weights += jnp.where(source > 0, kernel(target + source), 0)
  mirrored = 2 * (size - 1) - source
  weights += jnp.where(source < size - 1, kernel(mirrored - target), 0)
  return weights / kernel(np.arange(width)[None] - width // 2).sum(-1, keepdims=True)
