"""Ask the output of archive.py.

python -m helpers.archive best Speech OUTPUT --top_k 20
python -m helpers.archive histogram labels OUTPUT --threshold 0.5 --figure labels.png
python -m helpers.archive histogram scores OUTPUT --label Speech
python -m helpers.archive neighbours recording.wav OUTPUT
python -m helpers.archive duplicates OUTPUT --threshold 0.98 --format csv
python -m helpers.archive merge OUTPUT OTHER_OUTPUT --output MERGED
python -m helpers.archive export OUTPUT --labels Dog Cat --threshold 0.6 --output animals --copy

Outputs are folders or fsspec addresses. Several of them, of the same models and settings, are asked together.
COMMAND --help has the options of a command.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from helpers import cli
from helpers.archive.queries import answers, best, duplicates, histogram, neighbours
from helpers.archive.queries.export import TABLE, export_copy, export_table
from helpers.archive.queries.index import Index, open_index
from helpers.archive.queries.merge import merge
from helpers.archive.queries.reading import Archive, missing_shards, open_alike, pick_model
from helpers.archive.storage import is_remote
from helpers.tagger.embedding_files import escaped
from models.errors import UserError

HISTOGRAMS = ("labels", "scores", "durations", "failures")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.archive", description=__doc__, formatter_class=cli.HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, *, model: bool = True, style: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help, formatter_class=cli.HelpFormatter)
        if model:
            command.add_argument("--model", metavar="NAME", help="which of the models of the output, where it has several")
        if style:
            command.add_argument("--format", choices=answers.FORMATS, default="table", help="of what is printed")
        return command

    def add_outputs(command: argparse.ArgumentParser) -> None:
        command.add_argument("outputs", nargs="+", metavar="OUTPUT", help="output of archive.py")

    command = add("best", "recordings with the highest scores of a label", style=True)
    command.add_argument("label", metavar="LABEL")
    add_outputs(command)
    command.add_argument("--top_k", type=cli.positive_int, default=10, help="how many")
    command.add_argument("--threshold", type=cli.unit_interval, default=0.0, help="lowest score")
    command.add_argument("--every_row", action="store_true", help="list each window, event or part, not each recording once")

    command = add("histogram", "counts of labels, of the scores of a label, of durations or of failures")
    command.add_argument("what", choices=HISTOGRAMS)
    add_outputs(command)
    command.add_argument("--label", help="whose scores are counted")
    command.add_argument("--threshold", type=cli.unit_interval, default=0.5, help="of labels: lowest score that counts")
    command.add_argument("--top_k", type=cli.positive_int, default=20, help="of labels: how many, most frequent first")
    command.add_argument("--figure", type=cli.figure_path, metavar="FILE", help="draw it, too (.png, .pdf or .svg)")

    index_help = "folder of the index (index in the output)"
    command = add("neighbours", "recordings that are most similar to one, by their embeddings", style=True)
    command.add_argument("recording", metavar="RECORDING", help="its name in the output, or a file that the same model embeds")
    add_outputs(command)
    command.add_argument("--top_k", type=cli.positive_int, default=10, help="how many")
    command.add_argument("--index", type=local_path, metavar="DIR", help=index_help)

    command = add("duplicates", "groups of recordings that are the same or nearly so, by their embeddings", style=True)
    add_outputs(command)
    command.add_argument("--threshold", type=cli.unit_interval, default=0.98, help="lowest cosine of embeddings")
    command.add_argument("--index", type=local_path, metavar="DIR", help=index_help)

    command = add("merge", "write several outputs as one, the parts of long recordings joined", model=False)
    add_outputs(command)
    command.add_argument("--output", type=local_path, required=True, metavar="DIR", help="folder to write, which must not exist")
    command.add_argument("--prefix", action="store_true", help="put the name of its output in front of each recording")

    command = add("export", "write a data set for ex_folder.py")
    add_outputs(command)
    command.add_argument("--labels", nargs="+", metavar="LABEL", help="which classes (all)")
    command.add_argument(
        "--threshold", default="0.5", help="lowest score: a number, or a table with the columns label and threshold"
    )
    command.add_argument("--output", type=local_path, required=True, metavar="PATH", help="CSV to write; with --copy a folder")
    command.add_argument("--copy", action="store_true", help="cut the recordings into a folder, with labels.csv in it")
    return parser


def local_path(text: str) -> Path:
    if not text or is_remote(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no path of this machine; give one")
    return Path(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    archives = open_alike(args.outputs)
    for archive in archives:
        if missing := missing_shards(archive):
            print(f"{archive.address} is not complete, shards that are missing: {missing}", file=sys.stderr)
    COMMANDS[args.command](args, archives)
    return 0


def answer_best(args: argparse.Namespace, archives: list[Archive]) -> None:
    model = pick_model(archives, args.model)
    rows = best.best(archives, model, args.label, args.top_k, args.threshold, args.every_row)
    show(rows, best.columns(archives), args.format)


def answer_histogram(args: argparse.Namespace, archives: list[Archive]) -> None:
    if (args.what == "scores") != (args.label is not None):
        raise UserError("histogram scores needs --label LABEL, and the other histograms take none")
    if args.what == "labels":
        bars = histogram.labels(archives, pick_model(archives, args.model), args.threshold, args.top_k)
    elif args.what == "scores":
        bars = histogram.scores(archives, pick_model(archives, args.model), args.label)
    else:
        bars = {"durations": histogram.durations, "failures": histogram.failures}[args.what](archives)
    print(bars.text())
    if args.figure:
        bars.draw(args.figure)


def answer_neighbours(args: argparse.Namespace, archives: list[Archive]) -> None:
    model = pick_model(archives, args.model)
    source = escaped(args.recording)
    embeddings = neighbours.stored_embeddings(archives, model, source)
    if not len(embeddings):
        embeddings, source = neighbours.file_embeddings(archives[0], model, args.recording), None
    indexes = open_indexes(args, archives)
    show(neighbours.neighbours(indexes, embeddings, args.top_k, source), neighbours.columns(indexes), args.format)


def answer_duplicates(args: argparse.Namespace, archives: list[Archive]) -> None:
    indexes = open_indexes(args, archives)
    show(duplicates.duplicates(indexes, args.threshold), duplicates.columns(indexes), args.format)


def write_merged(args: argparse.Namespace, archives: list[Archive]) -> None:
    shards, rows = merge(archives, args.output, prefix=args.prefix)
    print(f"{args.output}: {rows:,} rows in {shards:,} shards")


def write_data_set(args: argparse.Namespace, archives: list[Archive]) -> None:
    chosen = (archives, pick_model(archives, args.model), args.output, args.labels, args.threshold)
    if args.copy:
        files, failed = export_copy(*chosen)
        print(f"{files:,} files; recordings that failed: {failed:,}")
        folder, table = args.output, args.output / TABLE
    else:
        rows, folder = export_table(*chosen)
        print(f"{rows:,} rows")
        table = args.output
    strong = ["--strong"] if archives[0].unit == "events" else []
    print(shlex.join(["python", "ex_folder.py", str(folder), "--csv", str(table), *strong]))


COMMANDS = {
    "best": answer_best,
    "histogram": answer_histogram,
    "neighbours": answer_neighbours,
    "duplicates": answer_duplicates,
    "merge": write_merged,
    "export": write_data_set,
}


def open_indexes(args: argparse.Namespace, archives: list[Archive]) -> list[Index]:
    if args.index and len(archives) > 1:
        raise UserError("--index is the folder of one output's index; leave it out, or ask the outputs one by one")
    return [open_index(archive, pick_model(archives, args.model), args.index) for archive in archives]


def show(rows: Iterable[dict[str, Any]], columns: Sequence[str], style: str) -> None:
    for line in answers.lines(rows, columns, style):
        print(line)


if __name__ == "__main__":
    cli.run(main)
