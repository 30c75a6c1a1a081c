"""Serve the page that tags sound in the browser on this machine, or write it into a folder for any static host.

The first run downloads ONNX Runtime for browsers (33 MB) from the npm registry; later ones need no network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from models.command import HelpFormatter, run
from web.server import SiteServer
from web.site import site_files, write_site


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--port", type=int, choices=range(1 << 16), metavar="PORT", default=8000, help="to serve at; 0: a free one")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the page into this new folder instead")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.output is not None:
        write_site(args.output)
        print(f"wrote the page to {args.output}; any static host can serve it")
        return 0
    with SiteServer(site_files(), args.port) as server:
        print(f"open {server.url} in a browser; Ctrl-C ends it", flush=True)
        server.serve_forever()
    return 0


def command() -> None:
    run(main)


if __name__ == "__main__":
    command()
