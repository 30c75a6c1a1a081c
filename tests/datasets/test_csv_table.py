"""datasets.csv_table: columns and rows are checked, and what is written can be read."""

from __future__ import annotations

import pytest

from datasets.csv_table import number, parse_own_table, read_table, read_text, safe_cell, write_results, write_table
from models.errors import UserError


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
        (b"a,b\n1,2\n1\n", "line 3: .* 2 columns a, b"),
        (b"a,b\n1,2,3\n", "line 2"),
        (b'a,b\n1,"2\n', "unexpected end"),
        (b"a,b\n\x81,2\n", "UTF-8"),
        (b"a,b\n1,\0\n", "UTF-8"),
        (b"PK\3\4", "workbook"),
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


# Tables of users


def parse(path, content: bytes, optional=()):
    path.write_bytes(content)
    return parse_own_table(read_text(path), path, ("path", "labels"), optional)


@pytest.mark.parametrize(
    "content",
    [
        b"path;labels\r\na b.wav;x, y\r\n",  # Excel where the decimal sign is a comma
        b"sep=;\r\npath;labels\r\na b.wav;x, y\r\n",
        b'path,labels\na b.wav,"x, y"\n',
        b"Path\tLABELS\ra b.wav\tx, y\r",
        b'\n path , labels \n a b.wav ,  "x, y" \n\n',
        b"path;labels;;\na b.wav;x, y;;\n;;;\n",  # cells that were once filled
        b'\xef\xbb\xbf,path,labels\n0,a b.wav,"x, y"\n',  # pandas
        '"path","labels"\n"a b.wav","x, y"'.encode("utf-16"),
        "path\tlabels\r\na b.wav\tx, y\r\n".encode("utf-16-le"),
    ],
)
def test_tables_as_programs_write_them(tmp_path, content):
    [(line, row)] = parse(tmp_path / "a.csv", content)
    assert row == {"path": "a b.wav", "labels": "x, y"} and line in (2, 3)


def test_encodings_that_are_assumed_are_named(tmp_path, caplog):
    for encoding, named in (("utf-8", ""), ("utf-8-sig", ""), ("cp1252", "cp1252"), ("utf-16", "utf-16")):
        caplog.clear()
        [(_, row)] = parse(tmp_path / "a.csv", "path,labels\nVögel.wav,Größe\n".encode(encoding))
        assert row == {"path": "Vögel.wav", "labels": "Größe"}
        assert [record.getMessage().endswith(named) for record in caplog.records] == [True] * bool(named)


def test_one_column_has_no_delimiter(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"path\na, b;c.wav\n")
    assert parse_own_table(read_text(tmp_path / "a.csv"), tmp_path / "a.csv", ("path",)) == [(2, {"path": "a, b;c.wav"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "column path, labels is missing; there are none"),
        (b"file;labels\n", "line 1: column path is missing; there are file, labels"),
        (b"path,labels,Onset,end\n", "line 1: column onset is unknown.*path, labels, end"),
        (b"path,labels,Labels\n", "line 1: column labels is there twice"),
        (b"path,labels\na,b\n\nc\n", "line 4: .* 2 columns path, labels"),
        (b"path;labels\na;b;c\n", "line 2: .*quote a cell that holds a ';'"),
        (b'path,labels\na,"b\n', "unexpected end"),
    ],
)
def test_bad_tables_of_users_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=f"a.csv.*{message}"):
        parse(tmp_path / "a.csv", content, ("end",))


def test_numbers_have_a_point_or_a_comma():
    assert [number(text) for text in ("5", " 1.5 ", "1,5", ",5", "5.", "-2e3")] == [5, 1.5, 1.5, 0.5, 5, -2000]
    for text in ("", "nan", "inf", "1,234.5", "1:30", "5 s", "\u0665", "1_0"):
        with pytest.raises(UserError, match="number"):
            number(text)


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", "\r=1", " =1", "=\x1b[31m"])
def test_a_cell_for_people_is_no_formula_and_holds_no_control_characters(text, tmp_path):
    cell = safe_cell(text)
    assert cell[0] == "'" and cell.isprintable()
    write_results(tmp_path / "a.csv", [("label", "score"), (text, -0.5)])
    assert read_table(tmp_path / "a.csv", ("label", "score")) == [{"label": cell, "score": "-0.5"}]
    write_table(tmp_path / "a.csv", [("label",), (text,)])  # what programs read stays as it is
    assert text.strip() in (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize("value", ["-0.5", "+1e-3", "-inf", -0.5, None, "", "'", "a=b", "Dog, -bark", "Grüße"])
def test_numbers_and_harmless_texts_stay_as_they_are(value):
    assert safe_cell(value) == value and type(safe_cell(value)) is type(value)
