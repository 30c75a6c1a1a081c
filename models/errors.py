"""The errors that a command reports in one line; every other exception is a mistake in the code and gets its traceback."""


class UserError(ValueError):
    """A mistake in what was given, such as an argument or a file; its one line says what was given, what is allowed, what to do."""
