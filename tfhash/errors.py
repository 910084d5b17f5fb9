"""The one exception that stands for a mistake of the user."""


class UserError(ValueError):
    """A mistake of the user: one clear line, exit status 2, never a traceback."""
