"""Print the top-k tags of recordings, timelines of them, or the events of a stream as they begin and end; write embeddings.

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
from typing import Any, TypeVar

from tqdm import tqdm

from datasets import audio
from helpers import cli
from helpers.devices import pick_device
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS, AudioTagger
from helpers.tagger.backends import BACKENDS, LAYERS
from helpers.tagger.embedding_files import embeddings_path, write_embeddings
from helpers.tagger.reading import UNUSABLE
from helpers.tagger.results import Embedding, Failure, Tagging, top_tags
from helpers.tagger.rows import results_file, results_path
from helpers.tagger.stream_command import add_stream_options, tag_stream
from helpers.tagger.streaming import THRESHOLD
from helpers.tagger.windows import to_samples
from models.config import POOLINGS
from models.errors import UserError

STANDARD_INPUT = "-"
TOP_K, TOP_K_WINDOW = 10, 3

ONLY_WITH = {  # option: what it needs one of
    "hop": ("window", "stream", "plot"),
    "off_threshold": ("stream",),
    "rate": ("stream",),
    "channels": ("stream",),
    "format": ("stream",),
    "show_top": ("stream",),
    "layers": ("embed",),
    "pooling": ("embed",),
}
NOT_WITH = {  # option: what contradicts it
    "stream": ("output", "plot", "top_k", "whole"),
    "embed": ("stream", "output", "plot", "top_k", "labels", "threshold"),
    "whole": ("window",),
    "backend": ("cuda", "ensemble"),  # onnx: one model, on the CPU
}

Result = TypeVar("Result", bound="Tagging | Embedding | Failure")


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
        help="wav, flac, ogg or mp3 files of any rate, length and channel count; folders and patterns of them; -: standard input",
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
    parser.add_argument("--backend", choices=BACKENDS, default="torch", help="inference backend; onnx (CPU) starts without PyTorch")

    group = parser.add_argument_group("output")
    group.add_argument("--top_k", type=cli.positive_int, help=f"tags of a recording ({TOP_K}) or of a window ({TOP_K_WINDOW})")
    group.add_argument(
        "--threshold", type=cli.unit_interval, help=f"lowest score shown (0; for an event to begin in a stream {THRESHOLD})"
    )
    group.add_argument("--labels", nargs="+", metavar="LABEL", help="show these classes only")
    group.add_argument(
        "--window", type=cli.positive_float, help=f"seconds of a window: shows a timeline (of a stream {WINDOW_SECONDS})"
    )
    group.add_argument("--hop", type=cli.positive_float, help=f"seconds from one window to the next ({HOP_SECONDS})")
    group.add_argument("--output", type=Path, help="write results to this .jsonl or .csv file instead of printing them")
    group.add_argument("--plot", type=cli.figure_path, help="draw spectrogram and timeline of one recording into this file")

    group = parser.add_argument_group("embeddings")
    group.add_argument(
        "--embed", type=Path, metavar="PATH", help="write embeddings of recordings, or of each --window, to this .npy or .h5 file"
    )
    group.add_argument("--layers", default=LAYERS, help="their layers, such as block11+mel, see models/embeddings.py (torch only)")
    group.add_argument("--pooling", choices=POOLINGS, default=POOLINGS[0], help="how the map of a layer is pooled")

    add_stream_options(parser, sources)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    refuse_conflicts(parser, args)
    if args.output:
        results_path(args.output)
    if args.embed:
        embeddings_path(args.embed)
    sources = [] if args.stream else find_recordings(args.audio_path)
    if STANDARD_INPUT in sources and sys.stdin is None:
        parser.error("standard input is closed")
    if args.plot and len(sources) > 1:
        parser.error(f"--plot draws one recording, not {len(sources)}")
    if len(sources) > 1 and STANDARD_INPUT in sources:
        parser.error("standard input (-) is one recording; give it alone")
    tagger = AudioTagger(
        args.ensemble or args.model_name,
        None if args.backend == "onnx" else pick_device(args.cuda),
        args.backend,
        batch_size=args.batch_size,
        min_seconds=args.min_seconds,
        whole=args.whole,
        layers=args.layers,
        pooling=args.pooling,
    )
    if args.stream:
        return tag_stream(tagger, args)
    failed: list[Failure] = []
    (embed if args.embed else tag)(tagger, sources, args, failed)
    return 1 if failed else 0


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


def find_recordings(paths: Sequence[str]) -> list[str]:
    """Expand folders, with all recordings below them, and patterns; a path stays as it is, also where nothing is there."""
    found: list[str] = []
    for path in paths:
        if path != STANDARD_INPUT and os.path.isdir(path):
            below = audio.find(path)
            if not below:
                raise UserError(f"{path} holds no recordings ({', '.join(audio.SUFFIXES)})")
            found += map(str, below)
        elif glob.has_magic(path) and not os.path.exists(path):
            matching = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
            if not matching:
                raise FileNotFoundError(f"no file matches {path}")
            found += matching
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def tag(tagger: AudioTagger, sources: Sequence[str], args: argparse.Namespace, failed: list[Failure]) -> None:
    """Tag recordings or their windows; print results or write them to a file."""
    inputs: Sequence[str | bytes] = sources
    name = None
    if sources == [STANDARD_INPUT]:
        inputs, name = [sys.stdin.buffer.read()], "standard input"
    selection = {
        "top_k": args.top_k or (TOP_K_WINDOW if args.window else TOP_K),
        "threshold": args.threshold or 0.0,
        "labels": args.labels,
    }
    windows = {"window": args.window or WINDOW_SECONDS, "hop": args.hop or HOP_SECONDS}
    timeline = None
    if args.plot:
        from helpers.tagger.timeline_figure import timeline_figure  # imports matplotlib

        timeline = tagger.tag_windows(inputs[0], **windows, **selection, name=name)
        timeline_figure(inputs[0], timeline, args.plot, count=args.top_k or TOP_K)

    results: Iterable[Tagging | Failure]
    if args.window:
        results = timeline if timeline is not None else tag_windows(tagger, inputs, windows, selection, name)
    elif len(inputs) == 1:
        results = [tagger.tag(inputs[0], **selection, name=name)]
    else:
        results = tagger.tag_files(inputs, **selection)
    if args.output:
        with results_file(args.output) as file:
            file.write(report_progress(results, len(inputs), failed))
        print(f"{args.output}: {len(inputs) - len(failed)} of {len(inputs)} recordings", file=sys.stderr)
    elif len(inputs) == 1 and not args.window:
        print_published(next(iter(results)))
    else:
        print_results(report_progress(results, len(inputs), failed), args.window is not None)


def tag_windows(
    tagger: AudioTagger, sources: Iterable[str | bytes], windows: dict[str, float], selection: dict[str, Any], name: str | None
) -> Iterator[Tagging | Failure]:
    """Yield the windows of each recording; of one that cannot be used, those before the damage, then a `Failure`."""
    classes = tagger.classes(selection["labels"])
    to_samples(**windows, rate=tagger.sample_rate)  # impossible ones are one error, not one for each recording
    for source in sources:
        source_name = name or str(source)
        try:
            for start, end, scores in tagger.iter_windows(source, **windows, name=name):
                tags = top_tags(tagger.labels, scores, selection["top_k"], selection["threshold"], classes)
                yield Tagging(source_name, start, end, tags)
        except UNUSABLE as error:
            yield Failure(source_name, error)


def report_progress(results: Iterable[Result], count: int, failed: list[Failure]) -> Iterator[Result]:
    """Yield results under a progress bar over `count` recordings; print each failure, raise it if there is one recording only."""
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


def embed(tagger: AudioTagger, sources: Sequence[str], args: argparse.Namespace, failed: list[Failure]) -> None:
    window, hop = args.window, (args.hop or HOP_SECONDS) if args.window else None
    info = {
        "model": args.ensemble or args.model_name,
        "layers": args.layers,
        "pooling": args.pooling,
        "columns": tagger.backend.columns,
        "sample_rate": tagger.sample_rate,
        "min_seconds": tagger.min_seconds,
        "whole": tagger.whole,
        "window": window,
        "hop": hop,
    }
    embeddings = tagger.embed_files(map(open_input, sources), window=window, hop=hop or HOP_SECONDS)
    rows = (result for result in report_progress(embeddings, len(sources), failed) if not isinstance(result, Failure))
    size = tagger.backend.embedding_size
    count = write_embeddings(args.embed, rows, size, info)
    print(
        f"{args.embed}: {count} embeddings of {size} values, {len(sources) - len(failed)} of {len(sources)} recordings",
        file=sys.stderr,
    )


def open_input(source: str) -> str | io.BytesIO:
    """Return a path as it is, and standard input as a file with a name."""
    if source != STANDARD_INPUT:
        return source
    content = io.BytesIO(sys.stdin.buffer.read())
    content.name = "standard input"
    return content


def print_published(tags: Tagging) -> None:
    """Print one recording in the form of the published code."""
    print("************* Acoustic Event Detected: *****************")
    for tag in tags:
        print(f"{tag.label}: {tag.score:.3f}")
    print("********************************************************")


def print_results(results: Iterable[Tagging | Failure], windows: bool) -> None:
    """Print recordings, each with its tags or its timeline below its name."""
    last = None
    for result in results:
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


if __name__ == "__main__":
    cli.run(main, fast_exit=True)
