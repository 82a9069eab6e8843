"""The 8-bit code of stored motion, for arrays of NumPy and of JAX alike.

Edges e in [0, 10] are stored as round(25.5 e); flow f in [-20, 20] pixels of the stored
resolution as round(f / 20 * 127) + 128. Networks see edges in [0, 1], or up to their
scale, and flow in [-1, 1].
"""

LIMITS = {"edges": 10.0, "flow": 20.0}  # largest stored value
STEPS = {"edges": 255, "flow": 127}  # codes from 0 to it
CHANNELS = {"edges": 1, "flow": 2}
ZERO_FLOW = 128  # code of a place that does not move


def encode(motion, store: str):
  """Edges or flow as uint8; the error after decoding is at most half a step."""
  limit, steps = LIMITS[store], STEPS[store]
  if store == "edges":
    return (motion.clip(0, limit) * (steps / limit) + 0.5).astype("uint8")
  return ((motion / limit).clip(-1, 1) * steps + ZERO_FLOW).round().astype("uint8")


def decode_flow(codes):
  """Stored flow [..., 2] as float32 pixels of the stored resolution."""
  return (codes.astype("float32") - ZERO_FLOW) * (LIMITS["flow"] / STEPS["flow"])


def relative_flow(codes):
  """Codes of flow, float also between whole ones, in [-1, 1]."""
  return ((codes - ZERO_FLOW) / STEPS["flow"]).clip(-1, 1)
