"""The errors that a command reports in one line; every other exception is a mistake in the code and gets its traceback."""

from pathlib import Path

IS_CHECKOUT = (Path(__file__).resolve().parents[1] / "pyproject.toml").is_file()  # else installed as a package


def install_command(extra: str = "") -> str:
    """Return the command that installs what a part of the project needs: its own packages, or those of an `extra`."""
    if IS_CHECKOUT:
        return f"pip install -r requirements{extra and '-'}{extra}.txt"
    return f'pip install "efficientat[{extra}]"' if extra else "pip install efficientat"


class UserError(ValueError):
    """A mistake in what was given, such as an argument or a file; its one line says what was given, what is allowed, what to do."""
