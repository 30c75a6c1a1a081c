"""What the commands of datasets.prepare share: their parser, an option type and a warning."""

import argparse
import sys

from models.command import HelpFormatter


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of `python -m datasets.prepare.NAME`; the description keeps its line breaks."""
    return argparse.ArgumentParser(
        prog=f"python -m datasets.prepare.{name}",
        description=description,
        formatter_class=HelpFormatter,
    )


def check_count(what: str, count: int, published: int) -> None:
    """Warn on standard error when a count is not the published one."""
    if count != published:
        print(f"warning: {count} {what} instead of the published {published}", file=sys.stderr)


def positive_int(text: str) -> int:
    """Parse an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)
