"""What the commands of datasets.prepare share: their parser, an option type and a warning."""

import argparse
import sys
from pathlib import Path

from models.command import HelpFormatter


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of `python -m datasets.prepare.NAME`; the description keeps its line breaks."""
    return argparse.ArgumentParser(
        prog=f"python -m datasets.prepare.{name}", description=description, formatter_class=HelpFormatter
    )


def download_parser(name: str, description: str, source: str, output_dir: Path) -> argparse.ArgumentParser:
    """Return the parser of a command that converts a download, with the help text `source` and the default `output_dir`."""
    parser = command_parser(name, description)
    parser.add_argument("--source", required=True, type=Path, help=source)
    parser.add_argument("--output_dir", type=Path, default=output_dir, help="folder to write")
    parser.add_argument("--num_workers", type=positive_int, default=2, help="workers that convert recordings")
    return parser


def check_count(what: str, count: int, published: int) -> None:
    """Warn on standard error when a count is not the published one."""
    if count != published:
        print(f"warning: {count} {what} instead of the published {published}", file=sys.stderr)


def positive_int(text: str) -> int:
    """Parse an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)
