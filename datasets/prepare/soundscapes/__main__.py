"""python -m datasets.prepare.soundscapes, see `datasets.prepare.soundscapes.build`."""

from datasets.prepare.soundscapes.build import build_parser, main
from models.command import run

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    run(main)
