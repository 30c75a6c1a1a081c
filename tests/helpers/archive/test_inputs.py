"""Which recordings an input names, and what is read of them: folders, lists, tars, Parquet files, here and at addresses."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from helpers.archive.inputs import Findings, list_inputs, open_entry
from models.errors import UserError

NO_UTF8 = os.fsdecode(b"\xff\xfe.wav")


@pytest.fixture
def store() -> Iterator[str]:
    """The address of an object store, in memory."""
    yield "memory://archive-inputs"
    fsspec.filesystem("memory").store.clear()


def listed(text: str | Path) -> dict[str, bytes]:
    """What each recording of an input holds."""
    contents = {}
    for entry in list_inputs(str(text)):
        content = open_entry(entry)
        assert entry.source not in contents
        contents[entry.source] = Path(content).read_bytes() if isinstance(content, str) else content
    return contents


def problems_of(text: str | Path) -> list[str]:
    findings = Findings()
    list(list_inputs(str(text), findings))
    return findings.problems


def fill(root: Path, *names: str) -> dict[str, bytes]:
    """Write files that hold their names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))
    return {name: os.fsencode(name) for name in names}


def tar_of(*members: tuple[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def parquet_of(rows: list[Any], **columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"audio": rows, **columns}), file, row_group_size=2)
    return file.getvalue()


def put(address: str, content: bytes) -> str:
    """Write a file here or at an address of fsspec."""
    if "://" in address:
        fsspec.filesystem("memory").pipe_file(address, content)
    else:
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        Path(address).write_bytes(content)
    return address


@pytest.fixture(params=["here", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, store: str) -> str:
    """A folder of this machine, then one of an object store."""
    return str(tmp_path) if request.param == "here" else store


def test_a_folder_in_the_order_of_its_paths(tmp_path: Path) -> None:
    names = ["a.wav", "b/0.FLAC", "b/c/d.mp3", "b.wav", "line\nend.ogg", "ü.wav", "x" * 240 + ".wav", "empty.wav"]
    fill(tmp_path, *names, ".hidden.wav", ".trash/e.wav", "notes.txt", "b/no_suffix")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "empty folder").mkdir()
    entries = list(list_inputs(str(tmp_path)))
    assert {entry.source for entry in entries} == set(names)
    assert entries == list(list_inputs(f"{tmp_path}/"))
    assert [entry.source for entry in entries][:3] == ["a.wav", "b/0.FLAC", "b/c/d.mp3"]
    assert all(entry.stamp == str((tmp_path / entry.source).stat().st_mtime_ns) for entry in entries)
    assert all(entry.size == (tmp_path / entry.source).stat().st_size for entry in entries)


def test_addresses_of_a_folder_do_not_depend_on_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "in/a.wav")
    monkeypatch.chdir(tmp_path)
    [entry] = list_inputs("in")
    assert entry == next(list_inputs(str(tmp_path / "in"))) == next(list_inputs(f"file://{tmp_path}/in"))
    assert os.path.isabs(entry.address)


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "b.wav")
    fill(tmp_path / "in", "a.wav")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/twice").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/circle").symlink_to(tmp_path / "in")
    (tmp_path / "in/broken.wav").symlink_to(tmp_path / "nowhere")
    assert set(listed(tmp_path / "in")) == {"a.wav", "linked/b.wav"}
    assert any("broken.wav" in problem for problem in problems_of(tmp_path / "in"))


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    fill(tmp_path, NO_UTF8)
    [entry] = list_inputs(str(tmp_path))
    entry.source.encode()  # results hold UTF-8
    assert Path(open_entry(entry)).read_bytes() == os.fsencode(NO_UTF8)


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "jsonl", "TXT", "JSONL"])
def test_lists(place: str, suffix: str) -> None:
    names = ["a.wav", "sub/b, c.wav", "ü.wav"]
    for name in names:
        put(f"{place}/{name}", name.encode())
    names.append("memory://archive-inputs/x.wav")
    put(names[-1], b"x")
    lines = {
        "txt": ["", *names, ""],
        "csv": ["label,file", *(f'dog,"{name}"' for name in names)],
        "tsv": ["Path\tlabel", *(f"{name}\tdog" for name in names)],
        "jsonl": [json.dumps(name if name == "a.wav" else {"path": name}) for name in names],
    }[suffix.lower()]
    text = put(f"{place}/list.{suffix}", b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert list(listed(text)) == names
    assert [content for content in listed(text).values()] == [b"a.wav", b"sub/b, c.wav", "ü.wav".encode(), b"x"]
    assert all(entry.stamp and entry.size for entry in list_inputs(text))


def test_what_a_list_names_is_looked_up_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = fill(tmp_path / "lists", "a.wav", NO_UTF8)
    (tmp_path / "lists/list.txt").write_bytes(b"\n".join([*contents.values(), os.fsencode(tmp_path / "lists/a.wav")]))
    monkeypatch.chdir(tmp_path)
    found = listed("lists/list.txt")
    assert [content for content in found.values()] == [*contents.values(), b"a.wav"]


def test_a_recording_of_a_list_that_is_not_there_costs_that_recording(place: str) -> None:
    put(f"{place}/a.wav", b"a")
    text = put(f"{place}/list.txt", b"missing.wav\na.wav\n")
    missing, there = list_inputs(text)
    assert (missing.source, there.source) == ("missing.wav", "a.wav")
    with pytest.raises(FileNotFoundError):
        content = open_entry(missing)
        Path(content).read_bytes()


def test_lines_that_name_nothing_are_problems(tmp_path: Path) -> None:
    lines = ['{"path": "a.wav"}', "[1]", "{", '{"other": 1}', '"\\ud800.wav"', '"b.wav"', "[" * 100_000]
    fill(tmp_path, "a.wav", "b.wav", "folder/c.wav")
    text = put(f"{tmp_path}/list.jsonl", "\n".join(lines).encode())
    assert list(listed(text)) == ["a.wav", "b.wav"]
    assert len(problems_of(text)) == 5
    text = put(f"{tmp_path}/list.csv", b'file;label\na.wav;1\n;2\n"b.wav";\n\nfolder;\n')
    assert list(listed(text)) == ["a.wav", "b.wav"]
    assert len(problems_of(text)) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"label,other\n1,2\n"),
        ("a.csv", b""),
        ("a.csv", b'file\n"a.wav'),
        ("a.txt", b"RIFF\0\0\0\0WAVE"),
        ("a.txt", b"x" * (1 << 21)),
        ("a.txt", b"\n\n"),
        ("a.tar", b"no tar" * 200),
        ("a.parquet", b"no parquet"),
    ],
)
def test_an_input_without_recordings_is_one_line_that_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    path = put(f"{tmp_path}/{name}", content)
    with pytest.raises(UserError, match=name) as error:
        list(list_inputs(path))
    assert "\n" not in str(error.value)


def test_inputs_that_are_not_there(tmp_path: Path, store: str) -> None:
    for text in (f"{tmp_path}/nothing", f"{store}/nothing", f"{tmp_path}/nothing.tar", f"{store}/nothing.txt"):
        with pytest.raises((UserError, FileNotFoundError), match="nothing"):
            list(list_inputs(text))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no recordings"):
        list(list_inputs(str(tmp_path / "empty")))
    with pytest.raises(UserError, match="nosuch"):
        list(list_inputs("nosuch://bucket/folder"))


def test_tars_are_read_where_their_members_lie(place: str) -> None:
    long = "folder/" * 30 + "long.wav"
    members = [("a/1.wav", b"one"), ("a/1.json", b"{}"), ("2.mp3", bytes(10_000)), (long, b"3"), ("ü.flac", b"4"), ("0.wav", b"")]
    put(f"{place}/in/x?#.tar", tar_of(*members))
    expected = {f"x?#.tar/{name}": content for name, content in members if not name.endswith("json")}
    assert listed(f"{place}/in") == expected
    assert listed(f"{place}/in/x?#.tar") == expected


def test_members_of_a_tar_never_leave_it(place: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("../../out.wav", "/abs.wav", "a.wav", ".hidden.wav", os.fsdecode(b"\xff.wav")):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"m"))
        for name, kind in (("link.wav", tarfile.SYMTYPE), ("hard.wav", tarfile.LNKTYPE), ("pipe.wav", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    put(f"{place}/x.tar", file.getvalue())
    found = listed(f"{place}/x.tar")
    assert list(found) == ["x.tar/../../out.wav", "x.tar//abs.wav", "x.tar/a.wav", "x.tar/\\udcff.wav"]
    assert set(found.values()) == {b"m"}


def test_members_and_rows_of_the_same_name_are_numbered(place: str) -> None:
    put(f"{place}/x.tar", tar_of(*((name, bytes([n])) for n, name in enumerate(["a.wav", "a.wav", "a.wav#2", "a.wav", "b.wav"]))))
    found = listed(f"{place}/x.tar")
    assert list(found) == ["x.tar/a.wav", "x.tar/a.wav#2", "x.tar/a.wav#3", "x.tar/b.wav"]  # "a.wav#2" has another suffix
    assert list(found.values()) == [b"\0", b"\1", b"\3", b"\4"]


@pytest.mark.parametrize("damage", ["ends in a member", "ends in a header", "garbage header", "compressed"])
def test_a_damaged_tar_costs_what_is_behind_the_damage(place: str, damage: str) -> None:
    content = tar_of(*((f"{n}.wav", bytes([n]) * 1000) for n in range(4)))  # 1,536 bytes each
    put(f"{place}/in/a.wav", b"a")
    if damage == "compressed":
        put(f"{place}/in/x.tar", __import__("gzip").compress(content))
    elif damage == "garbage header":
        put(f"{place}/in/x.tar", content[:3072] + b"\7" * 512 + content[3584:])
    else:
        put(f"{place}/in/x.tar", content[: 3072 + (700 if damage == "ends in a member" else 100)])
    found = listed(f"{place}/in")
    assert list(found) == ["a.wav", *([] if damage == "compressed" else ["x.tar/0.wav", "x.tar/1.wav"])]
    [problem] = problems_of(f"{place}/in")
    assert "x.tar" in problem and "\n" not in problem


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_parquet_files_with_a_column_of_audio(place: str, kind: str) -> None:
    contents = [b"one", None, b"", bytes(100_000), b"five"]
    names = ["x/1.wav", "2.wav", "3.wav", "1.wav", "ü.wav"]
    rows = contents if kind == "bytes" else [{"bytes": c, "path": n} for c, n in zip(contents, names, strict=True)]
    put(f"{place}/in/x.parquet", parquet_of(rows))
    found = listed(f"{place}/in")
    assert [content for content in found.values() if content] == [b"one", bytes(100_000), b"five"]
    assert all(name.startswith("x.parquet/") for name in found)
    assert listed(f"{place}/in/x.parquet") == found


def test_a_damaged_parquet_file_is_a_problem(place: str) -> None:
    put(f"{place}/in/a.wav", b"a")
    put(f"{place}/in/b.parquet", parquet_of([b"x"])[:-10])
    put(f"{place}/in/c.parquet", parquet_of([b"x"]).replace(b"audio", b"other"))
    assert list(listed(f"{place}/in")) == ["a.wav"]
    assert [name in problem for name, problem in zip("bc", problems_of(f"{place}/in"), strict=True)] == [True, True]


def test_the_same_folder_here_and_in_a_store(tmp_path: Path, store: str) -> None:
    contents = fill(tmp_path / "in", "a.wav", "b/0.flac", "b/c/d.mp3", "b.wav", "ü.wav")
    fill(tmp_path / "in", ".hidden.wav", "b/notes.txt")
    for path in (tmp_path / "in").rglob("*"):
        if path.is_file():
            put(f"{store}/{path.relative_to(tmp_path / 'in')}", path.read_bytes())
    assert listed(store) == listed(f"{store}/") == listed(tmp_path / "in") == contents
    assert [entry.source for entry in list_inputs(store)] == [entry.source for entry in list_inputs(str(tmp_path / "in"))]


def test_a_store_cannot_name_files_outside_of_the_folder(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    put(f"{store}/in/a.wav", b"a")
    put(f"{store}/secret.wav", b"s")
    ls = MemoryFileSystem.ls

    def lying(self: MemoryFileSystem, path: str, detail: bool = True, **options: Any) -> list[Any]:
        outside = [{"name": f"/archive-inputs/{name}", "size": 1, "type": "file"} for name in ("secret.wav", "in/../secret.wav")]
        return [*ls(self, path, detail=detail, **options), *outside]

    monkeypatch.setattr(MemoryFileSystem, "ls", lying)
    assert listed(f"{store}/in") == {"a.wav": b"a"}


class ClientError(Exception):
    """As those of botocore: no OSError."""


@pytest.mark.parametrize("kind", [ClientError, ValueError])  # as those of aiohttp for what is no URL
def test_errors_of_a_store_are_one_line(monkeypatch: pytest.MonkeyPatch, store: str, kind: type[Exception]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise kind("access denied")

    put(f"{store}/a.wav", b"a")
    [entry] = list_inputs(store)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(OSError, match="a.wav.*access denied"):
        open_entry(entry)


def test_nothing_is_read_in_advance(tmp_path: Path) -> None:
    text = put(f"{tmp_path}/list.txt", b"".join(b"%d.wav\n" % n for n in range(100_000)))
    entries = list_inputs(text)
    assert next(entries).source == "0.wav"
    entries.close()  # 100,000 files were not looked for, or this would take seconds


def test_a_server_that_sends_whole_files_only(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    put(f"{store}/x.tar", tar_of(("a.wav", b"a")))
    [entry] = list_inputs(f"{store}/x.tar")
    whole = MemoryFileSystem.cat_file
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path, **_: whole(self, path))
    with pytest.raises(OSError, match="x.tar"):
        open_entry(entry)
