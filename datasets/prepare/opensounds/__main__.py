"""python -m datasets.prepare.opensounds, see `datasets.prepare.opensounds.build`."""

import sys

from datasets.prepare.opensounds.build import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
