"""How large are the scores and embeddings of an archive as float16, as float32 rounded to it, and as float32; and who reads them?

    python -m benchmarks.archive_format
    python -m benchmarks.archive_format --python path/to/venv/bin/python

Writes synthetic rows of 527 scores and 960 values of embeddings, and lets DuckDB, Polars, Hugging Face's datasets and Spark read
them, in another environment if its Python is given. Spark needs Java.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import common
from helpers import cli
from helpers.archive.parquet_files import written
from helpers.archive.schema import DTYPES, Settings, schema, to_table
from helpers.archive.storage import Folder

CLASSES, SIZE = 527, 960
# Each prints the sum of the first scores of a file.
READERS = {
    "duckdb": "import duckdb; print(duckdb.sql(f\"SELECT sum(scores[1]::DOUBLE) FROM '{file}'\").fetchall()[0][0])",
    "polars": "import polars; print(polars.read_parquet(file)['scores'].arr.get(0).cast(polars.Float64).sum())",
    "datasets": "import datasets; print(sum(row[0] for row in "
    "datasets.load_dataset('parquet', data_files=file, split='train', cache_dir=cache)['scores']))",
    "pyspark": "from pyspark.sql import SparkSession; print(SparkSession.builder.master('local[1]').getOrCreate()"
    ".read.parquet(file).selectExpr('sum(scores[0])').first()[0])",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archive_format", description=__doc__, formatter_class=cli.HelpFormatter
    )
    parser.add_argument("--rows", type=cli.positive_int, default=2048, help="how many")
    parser.add_argument("--python", default=sys.executable, help="of the environment that has the readers")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        files, total = write(Path(folder), args.rows)
        rows = []
        for name, file in files.items():
            answers = [read(args.python, reader, file, total) for reader in READERS]
            rows.append((name, f"{file.stat().st_size / common.MB:.2f}", *answers))
    common.print_table(f"{args.rows:,} rows of {CLASSES} scores and {SIZE} values", ("columns", "MB", *READERS), rows)
    return 0


def write(folder: Path, count: int) -> tuple[dict[str, Path], float]:
    """Write the same rows in each way; return the files, and the sum of the first scores."""
    import pyarrow as pa
    from pyarrow import parquet

    generator = np.random.default_rng(0)
    scores = (1 / (1 + np.exp(-generator.normal(-6, 2, (count, CLASSES))))).astype(np.float32)
    embeddings = np.maximum(generator.normal(0.2, 0.5, (count, SIZE)), 0).astype(np.float32)
    columns = {"source": [f"{number}.wav" for number in range(count)], "scores": list(scores), "embedding": list(embeddings)}
    tables = {}
    for dtype in DTYPES:
        settings = Settings(("model",), embed=True, dtype=dtype)
        tables[f"float32, as {dtype}"] = to_table(columns, schema(settings, [("class",) * CLASSES], [SIZE]))
    rounded = tables["float32, as float16"].select(["scores", "embedding"])
    files = {}
    for number, (name, table) in enumerate(tables.items()):
        with written(Folder(folder), f"{number}.parquet", table.schema) as writer:
            writer.write_table(table)
        files[name] = folder / f"{number}.parquet"
    halves = pa.schema([(field.name, pa.list_(pa.float16(), field.type.list_size)) for field in rounded.schema])
    files["float16"] = folder / "halves.parquet"  # DuckDB does not read it split by bytes
    parquet.write_table(rounded.cast(halves), files["float16"], compression="zstd", use_dictionary=False)
    return files, float(scores[:, 0].sum(dtype=np.float64))


def read(python: str, reader: str, file: Path, total: float) -> str:
    """Return whether a reader gets the right sum, or why not."""
    code = f"file, cache = {str(file)!r}, {str(file.parent / 'cache')!r}; {READERS[reader]}"
    result = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    if "No module named" in result.stderr:
        return "not installed"
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "Error" in line or "Exception" in line]
        return (lines or ["failed"])[-1].split(": ", 1)[-1][:60]
    return "read" if abs(float(result.stdout.split()[-1]) - total) < 1e-3 * total else "other values"


if __name__ == "__main__":
    cli.run(main)
