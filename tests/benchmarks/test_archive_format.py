"""The same rows in three forms: sizes, and what reads them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.archive_format import read, write


def test_three_forms_of_the_same_rows(tmp_path: Path) -> None:
    files, total = write(tmp_path, 64)
    rounded, whole, halves = (pq.read_table(file) for file in files.values())
    sizes = [file.stat().st_size for file in files.values()]
    assert sizes[0] < 0.75 * sizes[1]
    for name in ("scores", "embedding"):
        values = [np.stack(table[name].to_numpy()) for table in (rounded, whole, halves)]
        np.testing.assert_array_equal(values[0], values[1].astype(np.float16))
        np.testing.assert_array_equal(values[0], values[2])
    assert read(sys.executable, "duckdb", files["float16"], total) == "read"
    assert read(sys.executable, "duckdb", files["float16"], 2 * total) == "other values"
    assert read(sys.executable, "duckdb", tmp_path / "nowhere.parquet", total) not in ("read", "not installed")
