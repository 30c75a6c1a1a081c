"""datasets.csv_table: columns and rows are checked, and what is written can be read."""

from __future__ import annotations

import pytest

from datasets.csv_table import read_table, write_table


def test_tables(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffa,b,c\r\n1,"x, y",ü\r\n\r\n2,,\r\n'.encode())
    assert read_table(path, ("c", "a")) == [{"a": "1", "b": "x, y", "c": "ü"}, {"a": "2", "b": "", "c": ""}]
    path.write_text("1\tx\n2\ty\n")
    assert read_table(path, ("number", "letter"), delimiter="\t", header=False)[1] == {"number": "2", "letter": "y"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 0: column a, b is missing; there are none"),
        (b"a,c\n1,2\n", "line 1: column b is missing; there are a, c"),
        (b"a,b\n1,2\n1\n", "line 3: this row has not the 2 columns a, b"),
        (b"a,b\n1,2,3\n", "line 2"),
        (b'a,b\n1,"2\n', "unexpected end"),
        (b"a,b\n\xff,2\n", "UTF-8"),
    ],
)
def test_bad_tables_are_named(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.csv.*{message}"):
        read_table(tmp_path / "a.csv", ("a", "b"))


def test_missing_tables_come_with_advice(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.csv not found .*; build it"):
        read_table(tmp_path / "a.csv", ("a",), advice="build it")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path, ("a",))


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "a.tsv"
    write_table(path, [("name", "text"), (1, 'tab\t and "quote"'), ("ü", "")], delimiter="\t")
    assert path.read_bytes().count(b"\n") == 3 and [path.name for path in path.parent.iterdir()] == ["a.tsv"]
    assert read_table(path, ("name", "text"), delimiter="\t") == [
        {"name": "1", "text": 'tab\t and "quote"'}, {"name": "ü", "text": ""},
    ]  # fmt: skip
