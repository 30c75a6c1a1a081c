"""Errors that users can mend."""


class UserError(ValueError):
    """A mistake in what was given, such as an argument or a file; its one line says what was given, what is allowed, what to do."""
