"""Questions to an archive of very many recordings: time and memory of the commands of `python -m helpers.archive`.

    python -m benchmarks.archive_queries --rows 1000000 --folder build/archive

The archive is synthetic: scores and embeddings are random (seed 0), embeddings around 2,000 centres, a hundredth of them near
copies of earlier ones, another hundredth exact ones. It is written to the folder and kept there, for a second run. Each command is
a process of its own. "CPU" adds the time of all cores up. "memory" is the largest resident set, with mapped files.
"""

from __future__ import annotations

import argparse
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import machine, print_table, run_process
from datasets.labels import audioset_labels
from helpers import cli
from helpers.archive.database import require
from helpers.archive.inputs import Entry
from helpers.archive.output import DATA, MANIFEST, Output
from helpers.archive.parquet_files import write_batches, written
from helpers.archive.plan import Plan
from helpers.archive.schema import Settings, schema, to_table
from models.files import replacing_folder

SHARD_ROWS, CENTRES, COPIES = 4096, 2000, 0.01
BATCH_ROWS = 1024


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--rows", type=cli.positive_int, default=1_000_000, help="recordings")
    parser.add_argument("--size", type=cli.positive_int, default=960, help="values of an embedding")
    parser.add_argument("--folder", type=Path, required=True, help="of the archive; what is there already is used")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(machine("duckdb", "faiss-cpu", "pyarrow"), flush=True)
    if not args.folder.exists():
        with replacing_folder(args.folder) as folder:
            write_synthetic(folder, args.rows, args.size)
    shutil.rmtree(args.folder / "index", ignore_errors=True)
    archive, merged, table = args.folder, args.folder.with_name(f"{args.folder.name}_merged"), args.folder / "labels.csv"
    commands = {
        "best of a label": ["best", "Speech", archive],
        "histogram of labels": ["histogram", "labels", archive],
        "histogram of scores": ["histogram", "scores", archive, "--label", "Speech"],
        "histogram of durations": ["histogram", "durations", archive],
        "neighbours, making the index": ["neighbours", source(args.rows // 2), archive],
        "neighbours": ["neighbours", source(args.rows // 3), archive],
        "duplicates": ["duplicates", archive, "--format", "csv"],
        "export": ["export", archive, "--threshold", "0.9", "--output", table],
        "merge": ["merge", archive, "--output", merged],
    }
    rows = []
    for name, command in commands.items():
        before = _children_seconds()
        run = run_process(["-m", "helpers.archive", *command])
        rows.append((name, f"{run.seconds:.1f}", f"{_children_seconds() - before:.1f}", f"{run.peak / 1e6:.0f}"))
    shutil.rmtree(merged)
    size = sum(file.stat().st_size for file in Path(archive, DATA).iterdir())
    title = f"{args.rows:,} recordings, 527 scores and {args.size} values of an embedding each, {size / 1e9:.2f} GB"
    print_table(title, ("question", "seconds", "CPU, seconds", "memory, MB"), rows)
    return 0


def _children_seconds() -> float:
    """Processor time of the processes that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def source(number: int) -> str:
    return f"folder{number // 1000:06}/recording{number:09}.wav"


def write_synthetic(folder: Path, rows: int, size: int) -> None:
    """Write an archive of one model."""
    require("pyarrow")
    labels = audioset_labels()
    settings = Settings(("synthetic",), embed=True)
    kind = schema(settings, [labels], [size])
    output = Output(folder)
    batches = synthetic(rows, size, len(labels))
    for shard in range(-(-rows // SHARD_ROWS)):
        count = -(-min(SHARD_ROWS, rows - shard * SHARD_ROWS) // BATCH_ROWS)
        with written(output.folder, f"{DATA}/shard-{shard:06}.parquet", kind) as writer:
            write_batches(writer, (batch for _ in range(count) for batch in to_table(next(batches), kind).to_batches()))
    names = map(source, range(rows))
    Plan(folder).extend((Entry(name, f"/recordings/{name}") for name in names), SHARD_ROWS)
    models = [{"name": "synthetic", "given": "synthetic", "sha256": "0" * 64, "labels": list(labels)}]
    output.write_json(MANIFEST, {"input": "/recordings", "settings": vars(settings), "models": models})


def synthetic(rows: int, size: int, classes: int) -> Iterator[dict[str, Sequence]]:
    """Yield the columns of batches of rows."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CENTRES, size), np.float32)
    earlier = None
    for first in range(0, rows, BATCH_ROWS):
        count = min(BATCH_ROWS, rows - first)
        noise = generator.standard_normal((count, size), np.float32)
        embeddings = np.maximum(centres[generator.integers(0, CENTRES, count)] + noise, 0)
        if earlier is not None:
            copies = int(COPIES * count)
            embeddings[:copies] = earlier[:copies] * (1 + 0.05 * noise[:copies])
            embeddings[copies : 2 * copies] = earlier[copies : 2 * copies]
        earlier = embeddings
        about = {"model": "synthetic", "model_hash": "0" * 64, "version": "0"}
        yield {
            "source": [source(number) for number in range(first, first + count)],
            "start": np.zeros(count),
            "end": np.full(count, 10.0),
            "scores": generator.random((count, classes), np.float32) ** 12,
            "embedding": embeddings,
            **{name: [value] * count for name, value in about.items()},
        }


if __name__ == "__main__":
    cli.run(main)
