"""Measurements as text."""


def table(result: dict) -> str:
  """A result as aligned lines."""
  lines, longest = [], max(24, *(len(name) + 2 for name in result))
  for name, value in result.items():
    if isinstance(value, dict):
      is_share = name.endswith("_shares")
      texts = {
        k: f"{100 * v:.2f} %" if is_share else _text(v) for k, v in value.items()
      }
      width = max(22, *(len(k) + 2 for k in texts)) if texts else 0
      lines += [f"  {name}", *(f"    {k:{width}s}{text}" for k, text in texts.items())]
    else:
      lines.append(f"  {name:{longest}s}{_text(value)}")
  return "\n".join(lines)


def _text(value):
  return f"{value:.4g}" if isinstance(value, float) else str(value)
