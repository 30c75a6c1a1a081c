from __future__ import annotations

import csv

import pytest

from helpers.costs.tables import table

ROWS = [{"name": "a, b", "MACs": 5, "share": "1.5%"}, {"name": "c", "MACs": 1234, "share": None}]


def test_text_puts_numbers_to_the_right() -> None:
    assert table(ROWS).splitlines() == ["name  MACs  share", "a, b     5   1.5%", "c     1234"]


def test_csv_quotes_and_leaves_cells_empty() -> None:
    assert list(csv.reader(table(ROWS, "csv").splitlines())) == [
        ["name", "MACs", "share"],
        ["a, b", "5", "1.5%"],
        ["c", "1234", ""],
    ]


def test_markdown() -> None:
    assert table(ROWS, "markdown").splitlines() == [
        "| name | MACs | share |", "| --- | --- | --- |", "| a, b | 5 | 1.5% |", "| c | 1234 |  |",
    ]  # fmt: skip


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match="text, csv, markdown"):
        table(ROWS, "html")
