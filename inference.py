"""Print the likeliest events of recordings, time lines of them, or the events of a stream as they begin and end; write embeddings.

python inference.py --model_name mn10_as --audio_path recording.wav --cuda
python inference.py --ensemble mn40_as_ext mn40_as --audio_path recording.mp3
python inference.py --model_name mn04_opensounds --audio_path resources/recordings/scene.ogg
python inference.py --audio_path recordings 'more/*.flac' --window 10 --hop 2.5 --output tags.csv
python inference.py --audio_path recordings --embed embeddings.h5 --layers block5+block11+block13+block15+mel
arecord -f S16_LE -r 32000 -c 1 -t raw | python inference.py --stream --rate 32000 --window 4 --hop 1
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets import audio
from helpers import cli
from helpers.devices import pick_device
from helpers.tagger.audio_tagger import BACKENDS, HOP_SECONDS, LAYERS, WINDOW_SECONDS, AudioTagger
from helpers.tagger.embedding_files import embeddings_path, write_embeddings
from helpers.tagger.events import Event
from helpers.tagger.results import Embedding, Failure, Tagging, likeliest, results_file, results_path
from helpers.tagger.streaming import THRESHOLD, StreamTagger, read_pieces
from helpers.tagger.windows import to_samples
from models.config import POOLINGS
from models.errors import UserError

STANDARD_INPUT = "-"
TOP_K, TOP_K_WINDOW = 10, 3


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--model_name", default="mn10_as", help="a released or bundled name, or the path of a checkpoint")
    names.add_argument("--ensemble", nargs="+", metavar="NAME", help="models to use together instead, by the mean of their logits")
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--audio_path",
        nargs="+",
        metavar="PATH",
        help="wav, flac, ogg or mp3 files of any rate, length and channel count; folders and patterns of them; -: standard input",
    )
    sources.add_argument("--stream", action="store_true", help="read raw 16-bit little-endian PCM from standard input without end")
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    parser.add_argument(
        "--min_seconds",
        type=cli.non_negative_float,
        help="pad shorter recordings with zeros to this length (that of the model's training)",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="torch", help="what computes; onnx (CPU) starts without PyTorch")

    group = parser.add_argument_group("what is shown")
    group.add_argument("--top_k", type=cli.positive_int, help=f"events of a recording ({TOP_K}) or of a window ({TOP_K_WINDOW})")
    group.add_argument(
        "--threshold", type=cli.unit_interval, help=f"least score shown (0; for an event to begin in a stream {THRESHOLD})"
    )
    group.add_argument("--labels", nargs="+", metavar="LABEL", help="show these classes only")
    group.add_argument(
        "--window", type=cli.positive_float, help=f"seconds of a window: shows a time line (of a stream {WINDOW_SECONDS})"
    )
    group.add_argument("--hop", type=cli.positive_float, help=f"seconds from one window to the next ({HOP_SECONDS})")
    group.add_argument("--output", type=Path, help="write results to this .jsonl or .csv file instead of printing them")
    group.add_argument("--plot", type=cli.figure_path, help="draw spectrogram and time line of one recording into this file")

    group = parser.add_argument_group("embeddings")
    group.add_argument(
        "--embed", type=Path, metavar="PATH", help="write embeddings of recordings, or of each --window, to this .npy or .h5 file"
    )
    group.add_argument(
        "--layers", default=LAYERS, help="layers that they consist of, such as block11+mel, see models/embeddings.py (torch only)"
    )
    group.add_argument("--pooling", choices=POOLINGS, default=POOLINGS[0], help="how maps of a layer become values")

    group = parser.add_argument_group("stream")
    group.add_argument("--rate", type=cli.positive_int, default=32000, help="sample rate of the PCM in Hz")
    group.add_argument("--channels", type=cli.positive_int, default=1, help="channels of the PCM, interleaved")
    group.add_argument("--off_threshold", type=cli.unit_interval, help="score below which an event ends (half of --threshold)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.stream and (args.output or args.plot or args.top_k):
        parser.error("--stream prints events; it does not go with --output, --plot or --top_k")
    if args.hop and not (args.window or args.stream or args.plot):
        parser.error("--hop needs --window")
    if args.off_threshold is not None and not args.stream:
        parser.error("--off_threshold needs --stream")
    if args.embed and (args.stream or args.output or args.plot or args.top_k or args.labels or args.threshold is not None):
        parser.error("--embed does not go with --stream, --output, --plot, --top_k, --labels or --threshold")
    if (args.layers, args.pooling) != (LAYERS, POOLINGS[0]) and not args.embed:
        parser.error("--layers and --pooling need --embed")
    if args.output:
        results_path(args.output)
    if args.embed:
        embeddings_path(args.embed)
    sources = [] if args.stream else find_recordings(args.audio_path)
    if (args.stream or STANDARD_INPUT in sources) and sys.stdin is None:
        parser.error("standard input is closed")
    if args.plot and len(sources) > 1:
        parser.error(f"--plot draws one recording, not {len(sources)}")
    if len(sources) > 1 and STANDARD_INPUT in sources:
        parser.error("standard input (-) is one recording; give it alone")
    if args.backend == "onnx" and (args.cuda or args.ensemble):
        parser.error("--backend onnx computes one model on the CPU; it does not go with --cuda or --ensemble")
    options = {"min_seconds": args.min_seconds, "layers": args.layers, "pooling": args.pooling}
    if args.backend == "onnx":
        tagger = AudioTagger(args.model_name, backend="onnx", **options)
    else:
        tagger = AudioTagger(args.ensemble or args.model_name, pick_device(args.cuda), **options)
    if args.stream:
        return follow(tagger, args)
    if args.embed:
        return embed(tagger, sources, args)
    source: str | bytes = sources[0]
    name = None
    if source == STANDARD_INPUT:
        source, name = sys.stdin.buffer.read(), "standard input"
    wanted = {
        "top_k": args.top_k or (TOP_K_WINDOW if args.window else TOP_K),
        "threshold": args.threshold or 0.0,
        "labels": args.labels,
    }
    window, hop = args.window or WINDOW_SECONDS, args.hop or HOP_SECONDS
    timeline = None
    if args.plot:
        from helpers.tagger.timeline_figure import timeline_figure  # imports matplotlib

        timeline = tagger.tag_windows(source, window, hop, **wanted, name=name)
        timeline_figure(source, timeline, args.plot, count=args.top_k or TOP_K)

    results: Iterable[Tagging | Failure]
    if timeline is not None and args.window:
        results = timeline
    elif args.window:
        results = time_lines(tagger, [source] if name else sources, window, hop, wanted, name)
    elif len(sources) == 1:
        results = [tagger.tag(source, **wanted, name=name)]
    else:
        results = tagger.tag_files(sources, **wanted)
    if args.output:
        return write(results, len(sources), args.output)
    if len(sources) == 1 and not args.window:
        return show_published(next(iter(results)))
    return show(results, len(sources), args.window is not None)


def find_recordings(paths: Sequence[str]) -> list[str]:
    """Expand folders, with all recordings below them, and patterns; a path stays as it is, also where nothing is there."""
    found: list[str] = []
    for path in paths:
        if path == STANDARD_INPUT or (os.path.exists(path) and not os.path.isdir(path)):
            found.append(path)
        elif os.path.isdir(path):
            below = audio.find(path)
            if not below:
                raise UserError(f"{path} holds no recordings ({', '.join(audio.SUFFIXES)})")
            found += map(str, below)
        elif glob.has_magic(path):
            matching = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
            if not matching:
                raise FileNotFoundError(f"no file matches {path}")
            found += matching
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def time_lines(
    tagger: AudioTagger, sources: Iterable[str | bytes], window: float, hop: float, wanted: dict[str, Any], name: str | None
) -> Iterator[Tagging | Failure]:
    """Yield the windows of each recording, or what is wrong with it, perhaps after windows of its undamaged beginning."""
    classes = tagger.classes(wanted["labels"])
    to_samples(window, hop, tagger.sample_rate)  # impossible ones are one error, not one of each recording
    for source in sources:
        source_name = name or str(source)
        try:
            for start, end, scores in tagger.iter_windows(source, window, hop, name=name):
                tags = likeliest(tagger.labels, scores, wanted["top_k"], wanted["threshold"], classes)
                yield Tagging(source_name, start, end, tags)
        except (ValueError, OSError) as error:
            yield Failure(source_name, error)


def watched(
    results: Iterable[Tagging | Embedding | Failure], count: int, failed: list[Failure]
) -> Iterator[Tagging | Embedding | Failure]:
    """Pass results on under a progress bar over `count` recordings; a failure is told, and raised if it is the only one."""
    seen = set()
    with tqdm(total=count, unit="file", disable=None if count > 1 else True, leave=False) as bar:
        for result in results:
            if isinstance(result, Failure):
                if count == 1:
                    raise result.error
                failed.append(result)
                with bar.external_write_mode():
                    print(f"error: {' '.join(str(result.error).split())}", file=sys.stderr)
            seen.add(result.source)
            bar.update(len(seen) - bar.n)
            yield result


def write(results: Iterable[Tagging | Failure], count: int, path: Path) -> int:
    """Write results to a file; return the exit code."""
    failed: list[Failure] = []
    with results_file(path) as file:
        file.write(watched(results, count, failed))
    print(f"{path}: {count - len(failed)} of {count} recordings", file=sys.stderr)
    return 1 if failed else 0


def embed(tagger: AudioTagger, sources: Sequence[str], args: argparse.Namespace) -> int:
    """Write embeddings to a file; return the exit code."""
    window, hop = args.window, (args.hop or HOP_SECONDS) if args.window else None
    info = {
        "model": args.ensemble or args.model_name,
        "layers": args.layers,
        "pooling": args.pooling,
        "columns": tagger.backend.columns,
        "sample_rate": tagger.sample_rate,
        "min_seconds": tagger.min_seconds,
        "window": window,
        "hop": hop,
    }
    failed: list[Failure] = []
    results = watched(tagger.embed_files(map(_opened, sources), window=window, hop=hop or HOP_SECONDS), len(sources), failed)
    rows = (result for result in results if not isinstance(result, Failure))
    size = tagger.backend.embedding_size
    count = write_embeddings(args.embed, rows, size, info)
    print(
        f"{args.embed}: {count} embeddings of {size} values, {len(sources) - len(failed)} of {len(sources)} recordings",
        file=sys.stderr,
    )
    return 1 if failed else 0


def _opened(source: str) -> str | io.BytesIO:
    """Return a path as it is, and standard input as a file that knows its name."""
    if source != STANDARD_INPUT:
        return source
    content = io.BytesIO(sys.stdin.buffer.read())
    content.name = "standard input"
    return content


def show_published(tags: Tagging) -> int:
    """Print one recording in the form of the published code."""
    print("************* Acoustic Event Detected: *****************")
    for tag in tags:
        print(f"{tag.label}: {tag.score:.3f}")
    print("********************************************************")
    return 0


def show(results: Iterable[Tagging | Failure], count: int, windows: bool) -> int:
    """Print recordings, each with its tags or its time line below its name; return the exit code."""
    failed: list[Failure] = []
    last = None
    for result in watched(results, count, failed):
        if isinstance(result, Failure):
            continue
        lines = [result.source] if result.source != last else []
        last = result.source
        if windows:
            tags = ", ".join(f"{tag.label} {tag.score:.3f}" for tag in result)
            lines.append(f"{result.start:9.2f} {result.end:9.2f}  {tags or '-'}")
        else:
            lines += [f"  {tag.label}: {tag.score:.3f}" for tag in result]
        tqdm.write("\n".join(lines))
    return 1 if failed else 0


def follow(tagger: AudioTagger, args: argparse.Namespace) -> int:
    """Print the events of standard input as they begin and end."""
    window, hop = args.window or WINDOW_SECONDS, args.hop or HOP_SECONDS
    threshold = THRESHOLD if args.threshold is None else args.threshold
    stream = StreamTagger(
        tagger, args.rate, args.channels, window, hop, threshold=threshold, off_threshold=args.off_threshold, labels=args.labels
    )
    print(
        f"listening at {args.rate} Hz; the first window is complete after {window:g} s, then what sounds is told "
        f"{max(0, window - hop) / 2:g} to {(window + hop) / 2:g} s later",
        file=sys.stderr,
    )
    try:
        for piece in read_pieces(sys.stdin.buffer, args.rate, args.channels):
            show_events(stream.feed(piece))
    except KeyboardInterrupt:  # how a recording usually ends
        show_events(stream.finish())
        raise
    show_events(stream.finish())
    return 0


def show_events(events: Iterable[Event]) -> None:
    for event in events:
        if event.end is None:
            print(f"begin {event.start:9.2f}  {event.label} {event.score:.3f}", flush=True)
        else:
            print(f"end   {event.end:9.2f}  {event.label} from {event.start:.2f}, at most {event.score:.3f}", flush=True)


if __name__ == "__main__":
    cli.run(main)
