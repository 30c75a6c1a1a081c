"""Tag recordings: their top-k tags, timelines or events, printed or written; events of a stream as they come; embeddings.

python inference.py --model_name mn10_as --audio_path recording.wav --cuda
python inference.py --ensemble mn40_as_ext mn40_as --audio_path recording.mp3
python inference.py --model_name mn04_distilled --audio_path resources/recordings/scene.ogg
python inference.py --audio_path recordings 'more/*.flac' --window 10 --hop 2.5 --output tags.csv
python inference.py --audio_path recordings --output tags.csv --resume
python inference.py --audio_path recordings --events events.csv
python inference.py --model_name fmn10+tf-256 --audio_path recording.wav --events --threshold 0.5
python inference.py --audio_path recordings --embed embeddings.h5 --layers block5+block11+block13+block15+mel
arecord -t wav -f S16_LE -r 32000 | python inference.py --stream --window 4 --hop 1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from helpers import cli
from helpers.devices import pick_device
from helpers.inference import event_files
from helpers.inference.embed import embed_recordings
from helpers.inference.event_files import ONE_RECORDING, PRINTED, events_path, events_suffix
from helpers.inference.files import TOP_K, TOP_K_WINDOW, tag_recordings
from helpers.inference.library_messages import told_with_name
from helpers.inference.options import add_reading_options, run_options, threshold
from helpers.inference.sources import STANDARD_INPUT, Inputs
from helpers.inference.stream import add_stream_options, tag_stream
from helpers.median_filter import MEDIAN_FRAMES
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS, AudioTagger
from helpers.tagger.backends import BACKENDS, LAYERS
from helpers.tagger.embedding_files import embeddings_path
from helpers.tagger.events import THRESHOLD
from helpers.tagger.recording_events import EVENT_HOP, EVENT_WINDOW
from helpers.tagger.rows import results_path
from helpers.tagger.run_files import RunFile
from models.config import POOLINGS
from models.errors import UserError

ONLY_WITH = {  # option: what it needs one of
    "hop": ("window", "stream", "plot", "events"),
    "off_threshold": ("stream", "events"),
    "median": ("stream", "events", "plot"),
    "rate": ("stream",),
    "channels": ("stream",),
    "format": ("stream",),
    "show_top": ("stream",),
    "layers": ("embed",),
    "pooling": ("embed",),
    "resume": ("output", "events"),
    "skip_existing": ("embed",),
    "timestamps": ("embed",),
}
NOT_WITH = {  # option: what contradicts it
    "stream": ("output", "plot", "top_k", "whole", "start", "end", "per_channel", "strict", "events"),
    "embed": ("stream", "output", "plot", "top_k", "labels", "threshold", "per_channel", "events"),
    "events": ("output", "plot", "top_k", "whole"),
    "channel": ("per_channel",),
    "plot": ("per_channel",),
    "whole": ("window",),
    "timestamps": ("window", "layers", "pooling", "whole", "ensemble"),
    "backend": ("cuda", "ensemble"),  # onnx: one model, on the CPU
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--model_name", default="mn10_as", help="a released or bundled name, or the path of a checkpoint")
    names.add_argument("--ensemble", nargs="+", metavar="NAME", help="several models instead; their logits are averaged")
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--audio_path",
        nargs="+",
        metavar="PATH",
        help="sound files of any format, rate, length and channel count; folders and patterns of them; -: standard input",
    )
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    parser.add_argument("--batch_size", type=cli.positive_int, default=8, help="windows or recordings to compute at once")
    parser.add_argument(
        "--min_seconds",
        type=cli.non_negative_float,
        help="pad shorter recordings with zeros to this length (that of the model's training)",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help=f"compute long recordings in one piece, as published, not as the mean of windows of {WINDOW_SECONDS:g} s",
    )
    parser.add_argument("--start", type=cli.non_negative_float, default=0.0, help="second of a recording to begin at")
    parser.add_argument("--end", type=cli.positive_float, help="second of a recording to end at (its end)")
    add_reading_options(parser, "a file of several")
    parser.add_argument("--backend", choices=BACKENDS, default="torch", help="inference backend; onnx (CPU) starts without PyTorch")

    group = parser.add_argument_group("output")
    group.add_argument("--top_k", type=cli.positive_int, help=f"tags of a recording ({TOP_K}) or of a window ({TOP_K_WINDOW})")
    group.add_argument(
        "--threshold",
        type=threshold,
        help=f"lowest score shown (0), or for an event to begin ({THRESHOLD}); for events of a frame-wise model also a table "
        "with the columns label and threshold",
    )
    group.add_argument(
        "--median", type=cli.positive_int, metavar="FRAMES", help=f"median filter of a frame-wise model, odd ({MEDIAN_FRAMES})"
    )
    group.add_argument("--labels", nargs="+", metavar="LABEL", help="show these classes only")
    group.add_argument(
        "--window",
        type=cli.positive_float,
        help=f"seconds of a window: shows a timeline (of a stream {WINDOW_SECONDS:g}, for events {EVENT_WINDOW:g})",
    )
    group.add_argument(
        "--hop", type=cli.positive_float, help=f"seconds from one window to the next ({HOP_SECONDS:g}, for events {EVENT_HOP:g})"
    )
    group.add_argument("--output", type=Path, help="write results to this .jsonl or .csv file instead of printing them")
    group.add_argument(
        "--events",
        type=Path,
        nargs="?",
        const=PRINTED,
        metavar="FILE",
        help=f"find events, in frames or by merging windows, and print them or write them: {', '.join(event_files.SUFFIXES)}",
    )
    group.add_argument("--resume", action="store_true", help="resume the output of an interrupted run, or begin it")
    group.add_argument("--plot", type=cli.figure_path, help="draw spectrogram and timeline or events of one recording")

    group = parser.add_argument_group("embeddings")
    group.add_argument(
        "--embed", type=Path, metavar="PATH", help="write embeddings of recordings, or of each --window, to this .npy or .h5 file"
    )
    group.add_argument("--skip_existing", action="store_true", help="add what is not in the file yet, also after an interruption")
    group.add_argument("--timestamps", action="store_true", help="embeddings of the frames of a frame-wise model")
    group.add_argument("--layers", default=LAYERS, help="their layers, such as block11+mel, see models/embeddings.py (torch only)")
    group.add_argument("--pooling", choices=POOLINGS, default=POOLINGS[0], help="how the map of a layer is pooled")

    add_stream_options(parser, sources)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    refuse_conflicts(parser, args)
    if args.output and args.output.name.lower().endswith((".txt", ".srt", ".rttm")):
        raise UserError(f"--output writes .jsonl and .csv; events are written to {args.output} by --events")
    run = begin(args)
    if run and run.is_complete and not args.embed:
        print(
            f"{run.path} is complete; what was added to a folder since then is not in it; remove it to start over", file=sys.stderr
        )
        return 0
    inputs = None if args.stream else find_inputs(parser, args)
    tagger = AudioTagger(
        args.ensemble or args.model_name,
        pick_device(args.cuda) if args.backend == "torch" else None,
        args.backend,
        batch_size=args.batch_size,
        min_seconds=args.min_seconds,
        whole=args.whole,
        layers=args.layers,
        pooling=args.pooling,
    )
    if args.stream:
        return tag_stream(tagger, args)
    name = "standard input" if inputs.first == STANDARD_INPUT else inputs.first
    with told_with_name(name) if inputs.is_one else nullcontext():  # several are decoded in processes of their own
        return (embed_recordings if args.embed else tag_recordings)(tagger, args, inputs, run)


def begin(args: argparse.Namespace) -> RunFile | None:
    """Check the name of the file that is to be written, and what an interrupted run left of it, before anything is computed."""
    if args.embed:
        path = embeddings_path(args.embed)
        return RunFile(path.with_name(f"{path.name}.part"), run_options(args), resume=args.skip_existing, option="--skip_existing")
    events = None if args.events == PRINTED else args.events
    path = results_path(args.output) if args.output else events_path(events) if events else None
    if args.resume and not path:
        raise UserError("--resume continues a file; give --events one, or leave --resume out")
    return RunFile(path, run_options(args), resume=args.resume) if path else None


def find_inputs(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Inputs:
    """Return the recordings; end with an error for several where there can be one only."""
    inputs = Inputs(args.audio_path)
    if inputs.first == STANDARD_INPUT and sys.stdin is None:
        parser.error("standard input is closed")
    if not inputs.is_one and STANDARD_INPUT in args.audio_path:
        parser.error("standard input (-) is one recording; give it alone")
    if not inputs.is_one and args.plot:
        parser.error("--plot draws one recording, not several")
    if (
        args.events not in (None, PRINTED)
        and events_suffix(args.events) in ONE_RECORDING
        and (args.per_channel or not inputs.is_one)
    ):
        several = ", ".join(suffix for suffix in event_files.SUFFIXES if suffix not in ONE_RECORDING)
        parser.error(f"{args.events} can hold the events of one recording or channel; for several use {several}")
    return inputs


def refuse_conflicts(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error for options that need others, see `ONLY_WITH`, or contradict each other, see `NOT_WITH`."""
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    for name in sorted(given & set(ONLY_WITH)):
        if not given & set(ONLY_WITH[name]):
            parser.error(f"--{name} needs {' or '.join(f'--{other}' for other in ONLY_WITH[name])}")
    for name in sorted(given & set(NOT_WITH)):
        for other in NOT_WITH[name]:
            if other in given:
                option = f"--backend {args.backend}" if name == "backend" else f"--{name}"
                parser.error(f"{option} does not go with --{other}")


if __name__ == "__main__":
    cli.run(main, fast_exit=True)
