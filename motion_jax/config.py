"""Configuration: the error type that users see."""


class UserError(ValueError):
  """A mistake of the user's, shown as one message with its fix; exit code 2."""
