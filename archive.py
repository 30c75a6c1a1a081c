"""Tag, find events in or embed an archive: any number of recordings, on this machine or on a cluster, by Ray Data.

python archive.py recordings --output tags
python archive.py recordings --output tags --model_name mn04_distilled mn10_as --top_k 10
python archive.py shards.txt --output embeddings --embed --layers block11+mel --gpus_per_network 0.5
python archive.py s3://bucket/recordings --output s3://bucket/events --model_name fmn10+tf-256 --events --address auto

The same command resumes what an interrupted one left. Needs requirements-archive.txt; see docs/archive.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from efficientat import __version__
from helpers import cli
from helpers.archive.command import write_archive
from helpers.inference.options import add_reading_options, threshold
from helpers.median_filter import MEDIAN_FRAMES
from helpers.tagger.audio_tagger import HOP_SECONDS
from helpers.tagger.backends import BACKENDS, LAYERS
from helpers.tagger.events import THRESHOLD
from helpers.tagger.recording_events import EVENT_HOP, EVENT_WINDOW
from models.config import POOLINGS


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a folder, a list of files (.txt, .csv, .jsonl), a tar, a Parquet file or folder with a column of audio; or the "
        "address of one, such as s3://bucket/folder",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder or address to write to, or to resume")

    group = parser.add_argument_group("models")
    group.add_argument("--model_name", nargs="+", default=["mn10_as"], metavar="NAME", help="released, bundled, or checkpoints")
    group.add_argument("--backend", choices=BACKENDS, default="torch", help="inference backend; onnx computes on the CPU")
    group.add_argument("--batch_size", type=cli.positive_int, default=8, help="windows or recordings to compute at once")
    group.add_argument("--min_seconds", type=cli.non_negative_float, help="pad shorter recordings with zeros to this length")

    group = parser.add_argument_group("rows")
    group.add_argument("--events", action="store_true", help="find events, in frames or by merging windows, instead of tagging")
    group.add_argument("--embed", action="store_true", help="write embeddings next to the scores")
    group.add_argument("--layers", default=LAYERS, help="of embeddings, such as block11+mel, see models/embeddings.py (torch only)")
    group.add_argument("--pooling", choices=POOLINGS, default=POOLINGS[0], help="how the map of a layer is pooled")
    group.add_argument("--top_k", type=cli.positive_int, help="keep the highest scores only (all)")
    group.add_argument(
        "--window", type=cli.positive_float, help=f"seconds of a window, each a row (of events {EVENT_WINDOW:g}, else none)"
    )
    group.add_argument(
        "--hop", type=cli.positive_float, help=f"seconds from one window to the next ({HOP_SECONDS:g}, for events {EVENT_HOP:g})"
    )
    group.add_argument(
        "--threshold", type=threshold, help=f"score for an event to begin ({THRESHOLD}), or for a frame-wise model a table of them"
    )
    group.add_argument("--off_threshold", type=cli.unit_interval, help="score for an event to end (half of the other)")
    group.add_argument(
        "--median", type=cli.positive_int, metavar="FRAMES", help=f"median filter of a frame-wise model, odd ({MEDIAN_FRAMES})"
    )

    group = parser.add_argument_group("reading")
    add_reading_options(group, "a recording")

    group = parser.add_argument_group("machines")
    group.add_argument("--address", help="of a Ray cluster: host:port, or auto on one of its machines (this machine alone)")
    group.add_argument("--decoders", type=cli.positive_int, metavar="N", help="workers that decode (one for each core)")
    group.add_argument(
        "--networks", type=cli.positive_int, metavar="N", help="workers that compute (one for each core or GPU share)"
    )
    group.add_argument(
        "--gpus_per_network", type=cli.non_negative_float, default=0.0, metavar="F", help="share of a GPU for each; 0: the CPU"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    for option, value, needs, given in (
        ("--hop", args.hop, "--window or --events", args.window or args.events),
        ("--threshold", args.threshold, "--events", args.events),
        ("--off_threshold", args.off_threshold, "--events", args.events),
        ("--median", args.median, "--events", args.events),
        ("--layers", args.layers != LAYERS, "--embed", args.embed),
        ("--pooling", args.pooling != POOLINGS[0], "--embed", args.embed),
    ):
        if value is not None and value is not False and not given:  # 0 is given too
            parser.error(f"{option} needs {needs}")
    return write_archive(args, __version__)


if __name__ == "__main__":
    cli.run(main, fast_exit=True)
