"""The look of all pictures: colours, sizes of text, figures and their panels.

Sizes suit a page that shows a picture 830 pixels wide, as GitHub does.
"""

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, GREY, LIGHT = "#222222", "#777777", "#cccccc"
RED, BLUE, GREEN = "#d1495b", "#00798c", "#2a9d4b"
# What else needs a colour of its own, in this order.
OTHERS = ("#edae49", "#9d6bb0", "#66a182", "#2e4057")
GOOD, BAD = GREEN, RED
# Sizes of text in points; a point is DOTS / 72 pixels.
TITLE, TEXT, SMALL = 11, 9, 8
FONT = "DejaVu Sans"
DOTS = 100


def figure(width: float, height: float, **options) -> Figure:
  """A figure of so many inches that is drawn without a display."""
  made = Figure((width, height), dpi=DOTS, facecolor="white", **options)
  FigureCanvasAgg(made)
  return made


def frame(axes: Axes, title: str) -> None:
  """Gives a panel its title and the colours of its frame and ticks."""
  axes.set_title(title, fontsize=TITLE, color=INK)
  axes.spines[:].set_color(LIGHT)
  axes.tick_params(labelsize=SMALL, color=LIGHT, labelcolor=INK)


def rgb(color: str) -> tuple[int, int, int]:
  """A colour such as '#d1495b' as three bytes."""
  red, green, blue = matplotlib.colors.to_rgb(color)
  return round(255 * red), round(255 * green), round(255 * blue)


def printable(name) -> str:
  """A text without a formula, or bytes that are no text, as file names may have."""
  text = str(name).encode("utf-8", "replace").decode("utf-8")
  return text.replace("$", r"\$")
