"""The data sets that are made from official lists, by name."""

from motion_jax.data.builders import (
  aslan,
  ava,
  hmdb51,
  kinetics400,
  something_something_v2,
  ucf101,
  yupenn,
)

# Each has a function `make_plan`, and says what it is in its first lines.
OFFICIAL = {
  "ucf101": ucf101,
  "hmdb51": hmdb51,
  "kinetics400": kinetics400,
  "something_something_v2": something_something_v2,
  "ava": ava,
  "aslan": aslan,
  "yupenn": yupenn,
}
TOLERANT = frozenset({"kinetics400"})  # that nobody has whole any more
