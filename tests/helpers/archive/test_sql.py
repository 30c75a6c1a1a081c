"""The questions of docs/archive_queries.md in SQL, asked by DuckDB over files that the output module wrote."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from tests.helpers.archive.archives import SIZE, failure, row, vector

PAGE = Path(__file__).resolve().parents[3] / "docs/archive_queries.md"


@pytest.fixture
def questions(write_archive) -> list[str]:
    """The SQL of the page about an archive."""
    archive = write_archive(
        "OUT",
        [
            row("pets/a.wav", end=1800.0, scores=[0.25, 0.75, 0], embedding=vector(1, 0)),
            row("pets/b.wav", end=1800.0, scores=[0.5, 0.25, 0], embedding=vector(1, 1)),
            failure("pets/c.wav"),
        ],
        [row("radio/a.wav", end=7200.0, scores=[0.875, 0, 0], embedding=vector(3, 2))],
    )
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert all("'OUT/data/*.parquet'" in block for block in blocks)
    return [block.replace("'OUT/", f"'{archive}/").replace("FLOAT[384]", f"FLOAT[{SIZE}]") for block in blocks]


def test_three_questions_in_sql(questions):
    best, hours, similar = (duckdb.sql(question).fetchall() for question in questions)
    assert best == [("radio/a.wav", 0, 7200, 0.875), ("pets/b.wav", 0, 1800, 0.5), ("pets/a.wav", 0, 1800, 0.25)]
    assert hours == [("radio", 1, 0, 2.0), ("pets", 3, 1, 1.0)]
    assert [source for source, _ in similar] == ["radio/a.wav", "pets/b.wav"]
    assert similar[0][1] == pytest.approx(3 / 13**0.5)
