"""python -m datasets.prepare.opensounds, see `datasets.prepare.opensounds.build`."""

from datasets.prepare.opensounds.build import build_parser, main
from models.command import run

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    run(main)
