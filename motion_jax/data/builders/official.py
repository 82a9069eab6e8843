"""The data sets that are made from official lists: their builders and plans."""

from motion_jax.data.builders import (
  aslan,
  ava,
  hmdb51,
  kinetics400,
  something_something_v2,
  ucf101,
  yupenn,
)

# (builder, function that plans it) by the name of the data set.
OFFICIAL = {
  "ucf101": (ucf101.Ucf101, ucf101.make_plan),
  "hmdb51": (hmdb51.Hmdb51, hmdb51.make_plan),
  "kinetics400": (kinetics400.Kinetics400, kinetics400.make_plan),
  "something_something_v2": (
    something_something_v2.SomethingSomethingV2,
    something_something_v2.make_plan,
  ),
  "ava": (ava.Ava, ava.make_plan),
  "aslan": (aslan.Aslan, aslan.make_plan),
  "yupenn": (yupenn.Yupenn, yupenn.make_plan),
}
TOLERANT = frozenset({"kinetics400"})  # that nobody has whole any more
