"""Attacks by recordings, HDF5 files, archives, tables and JSON."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.datasets.test_hostile_recordings import BOMBS, playlists
from tests.fuzz import entries, undamaged
from tests.fuzz.attacks_models import Executed
from tests.fuzz.cases import Attack
from tests.fuzz.sandbox import OWNED
from tests.fuzz.values import CONTROL, FORMULA, NUMBERS, json_values, nested

Make = Callable[[bytes, Path], bytes]
RECORDING_BOMBS = (
    "ID3 of 100 MB",
    "wav of 1000 channels",
    "wav at 2^31 - 1 Hz",
    "200,000 empty ID3 tags",
    "wav with sizes of 2^64",
)


def recording_attacks() -> Iterator[Attack]:
    for name in RECORDING_BOMBS:
        yield Attack(entries.RECORDING, name, lambda _, __, n=name: BOMBS[n](), must_fail=False)
    for name in playlists(""):
        yield Attack(entries.RECORDING, f"playlist, {name}", lambda _, secret, n=name: playlists(str(secret))[n].encode())
    for name, value in (("NaN", np.nan), ("Inf", np.inf), ("1e38", 1e38)):
        sound = np.full(undamaged.RATE, value, "<f4").tobytes()
        header = (
            b"RIFF"
            + struct.pack("<I", 36 + len(sound))
            + b"WAVEfmt "
            + struct.pack("<IHHIIHH", 16, 3, 1, undamaged.RATE, 4 * undamaged.RATE, 4, 32)
        )
        content = header + b"data" + struct.pack("<I", len(sound)) + sound
        yield Attack(entries.RECORDING, f"samples are {name}", lambda _, __, c=content: c, must_fail=False)
    for name, content in {"empty": b"", "text": CONTROL.encode() * 50, "zeros": bytes(1 << 20)}.items():
        yield Attack(entries.RECORDING, name, lambda _, __, c=content: c)


def hdf5(write: Callable[[h5py.File, Path], object]) -> Make:
    """The HDF5 file after `write` has changed it."""

    def make(content: bytes, secret: Path) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=".hdf") as file:
            Path(file.name).write_bytes(content)
            with h5py.File(file.name, "r+") as data:
                write(data, secret)
            return Path(file.name).read_bytes()

    return make


def _replace(name: str, **options: Any) -> Make:
    """A data set with other content."""

    def write(data: h5py.File, _: Path) -> None:
        del data[name]
        data.create_dataset(name, **options)

    return hdf5(write)


def _link(name: str, link: Callable[[Path], object]) -> Make:
    def write(data: h5py.File, secret: Path) -> None:
        del data[name]
        data[name] = link(secret)

    return hdf5(write)


def _external_storage(data: h5py.File, secret: Path) -> None:
    shape = data["target"].shape
    del data["target"]
    data.create_dataset("target", shape, np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def _virtual(data: h5py.File, secret: Path) -> None:
    shape = data["target"].shape
    del data["target"]
    layout = h5py.VirtualLayout(shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "target", shape)
    data.create_virtual_dataset("target", layout)


def _mp3s(*contents: bytes) -> Make:
    def write(data: h5py.File, _: Path) -> None:
        for row in range(len(data["mp3"])):
            data["mp3"][row] = np.frombuffer(contents[row % len(contents)], np.uint8)

    return hdf5(write)


def hdf5_attacks() -> Iterator[Attack]:
    def attack(name: str, make: Make, must_fail: bool = True) -> Attack:
        return Attack(entries.HDF5, name, make, must_fail)

    count = len(undamaged.IDS)
    mp3s = h5py.vlen_dtype(np.uint8)
    for name in ("audio_name", "mp3", "target"):
        yield attack(f"no {name}", hdf5(lambda data, _, n=name: data.__delitem__(n)))
        yield attack(f"{name} is a group", hdf5(lambda data, _, n=name: (data.__delitem__(n), data.create_group(n))))
        yield attack(f"{name} is one number", _replace(name, data=3))
        yield attack(f"{name} is empty", _replace(name, data=h5py.Empty("f4")))
        yield attack(
            f"{name} has 2^40 rows",
            _replace(
                name,
                shape=(1 << 40, 66) if name == "target" else (1 << 40,),
                dtype=mp3s if name == "mp3" else "S20" if name == "audio_name" else "u1",
                chunks=True,
            ),
        )
        yield attack(f"{name} is a link into another file", _link(name, lambda secret: h5py.ExternalLink(str(secret), "/target")))
        yield attack(f"{name} is a link to itself", _link(name, lambda _, n=name: h5py.SoftLink(f"/{n}")))
        yield attack(f"{name} is a link to nothing", _link(name, lambda _: h5py.SoftLink("/nothing")))
    yield attack("targets stored in another file", hdf5(_external_storage))
    yield attack("targets from another file, virtual", hdf5(_virtual))
    for dtype in ("f4", "i8", "S3", "c8"):
        yield attack(f"targets of type {dtype}", _replace("target", shape=(count, 66), dtype=dtype))
    yield attack("targets of text", _replace("target", data=["x"] * count, dtype=h5py.string_dtype()))
    yield attack("targets of another width", _replace("target", shape=(count, 3), dtype="u1"))
    yield attack("targets of another number", _replace("target", shape=(count - 2, 66), dtype="u1"))
    yield attack("names are numbers", _replace("audio_name", data=np.arange(count)))
    yield attack("names are long texts", _replace("audio_name", data=["x" * 100_000] * count, dtype=h5py.string_dtype()))
    yield attack("names of 1 GB each", _replace("audio_name", shape=(count,), dtype=f"S{1 << 30}", chunks=(1,), compression="gzip"))
    for name, value in {
        "../": b"../../owned.mp3",
        "control characters": CONTROL.encode() + b"\n",
        "no UTF-8": b"\xff\xfe\xfd",
    }.items():
        names = np.array([value + str(row).encode() for row in range(count)], "S20")
        yield attack(f"names have {name}", _replace("audio_name", data=names), must_fail=False)
    yield attack("names are equal", _replace("audio_name", data=np.array([b"x.mp3"] * count)), must_fail=False)
    yield attack("mp3s are numbers", _replace("mp3", data=np.arange(count)))
    yield attack("mp3s are one table", _replace("mp3", data=np.zeros((count, 50), np.uint8)))
    yield attack("mp3s of floats", _replace("mp3", shape=(count,), dtype=h5py.vlen_dtype("f4")))
    yield attack("mp3s are empty", _replace("mp3", shape=(count,), dtype=mp3s), must_fail=False)
    yield attack(
        "mp3s are playlists",
        lambda content, secret: _mp3s(*(text.encode() for text in playlists(str(secret)).values()))(content, secret),
        must_fail=False,
    )
    yield attack("mp3s are zeros", _mp3s(bytes(100_000)), must_fail=False)
    yield attack("heap without objects", lambda content, _: _zero_behind(content, b"GCOL", 16))
    for mark in (b"TREE", b"SNOD", b"HEAP", b"BTHD"):
        if mark != b"BTHD":
            yield attack(f"zeros behind {mark.decode()}", lambda content, _, m=mark: _zero_behind(content, m, 16))
    for share in (0.1, 0.5, 0.99):
        yield attack(f"cut at {share}", lambda content, _, s=share: content[: int(s * len(content))], must_fail=False)
    for name, content in {"empty": b"", "text": CONTROL.encode() * 50, "only the mark": b"\x89HDF\r\n\x1a\n" + bytes(5000)}.items():
        yield attack(name, lambda _, __, c=content: c)


def _zero_behind(content: bytes, mark: bytes, count: int) -> bytes:
    result, place = bytearray(content), -1
    while (place := content.find(mark, place + 1)) >= 0:
        result[place + len(mark) + 4 : place + len(mark) + 4 + count] = bytes(count)
    return bytes(result)


def _zip(files: dict[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _with_names(*names: str) -> bytes:
    files = {"ESC-50-master/meta/esc50.csv": undamaged.esc50_table(list(names)).encode()}
    return _zip(files | {f"ESC-50-master/audio/{name}": undamaged.wav(number) for number, name in enumerate(names)})


def _zip_bomb(name: str) -> bytes:
    """An entry of 1 GB of zeros in 1 MB."""
    files = {
        "ESC-50-master/meta/esc50.csv": undamaged.esc50_table(["0.wav"]).encode(),
        "ESC-50-master/audio/0.wav": undamaged.wav(0),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other, content in files.items():
            if not other.endswith(name):
                archive.writestr(other, content)
        with archive.open(next(other for other in files if other.endswith(name)), "w", force_zip64=True) as file:
            for _ in range(256):
                file.write(bytes(1 << 22))
    return buffer.getvalue()


def zip_attacks() -> Iterator[Attack]:
    def attack(name: str, make: Make, must_fail: bool = True) -> Attack:
        return Attack(entries.ZIP, name, make, must_fail)

    for name in (f"../../{OWNED}.wav", f"../../../{OWNED}", "/tmp/owned.wav", "a/b.wav", "..", ".", "a\\..\\b.wav"):
        yield attack(f"table names {name}", lambda _, __, n=name: _with_names(n), must_fail="\\" not in name)
    yield attack(
        "entries named ../",
        lambda content, _: _zip({f"../../{OWNED}": b"x", "/etc/owned": b"x"} | _files(content)),
        must_fail=False,
    )
    yield attack("names have control characters", lambda _, __: _with_names(f"{CONTROL}.wav"), must_fail=False)
    yield attack("table of 1 GB in 1 MB", lambda _, __: _zip_bomb("esc50.csv"))
    yield attack("recording of 1 GB in 1 MB", lambda _, __: _zip_bomb("0.wav"))
    yield attack("declares 2^32 - 2 bytes", lambda content, _: _declare(content, 0xFFFFFFFE))
    yield attack("declares no bytes", lambda content, _: _declare(content, 0))
    yield attack("encrypted", lambda content, _: _flag(content, 1))
    yield attack("unknown compression", lambda content, _: _method(content, 77))
    yield attack(
        "60,000 entries", lambda content, _: _zip({f"x/{n}": b"" for n in range(60_000)} | _files(content)), must_fail=False
    )
    yield attack("no table", lambda _, __: _zip({"a.wav": undamaged.wav(0)}))
    for name, content in {
        "empty": b"",
        "half": None,
        "text": CONTROL.encode() * 50,
        "an empty archive": b"PK\5\6" + bytes(18),
    }.items():
        yield attack(name, lambda good, _, c=content: good[: len(good) // 2] if c is None else c)


def _files(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _patched(content: bytes, place_in_local: int, place_in_central: int, value: bytes) -> bytes:
    """Overwrite a field of every entry, in its header and in the directory."""
    result = bytearray(content)
    for mark, offset in ((b"PK\3\4", place_in_local), (b"PK\1\2", place_in_central)):
        place = -1
        while (place := content.find(mark, place + 1)) >= 0:
            result[place + offset : place + offset + len(value)] = value
    return bytes(result)


def _declare(content: bytes, size: int) -> bytes:
    return _patched(content, 22, 24, struct.pack("<I", size))


def _flag(content: bytes, flag: int) -> bytes:
    return _patched(content, 6, 8, struct.pack("<H", flag))


def _method(content: bytes, method: int) -> bytes:
    return _patched(content, 8, 10, struct.pack("<H", method))


def _text(text: str) -> Make:
    return lambda _, __: text.encode("utf-8", "surrogateescape")


def table_attacks() -> Iterator[Attack]:
    first = "a/a0.wav,a,0,0.3,train,a0"
    for name, row in {
        "leaves the folder": "../../../elsewhere/secret,a,0,0.3,train,x",
        "names a device": "/dev/zero,a,0,0.3,train,x",
        "starts at nan": "a/a0.wav,a,nan,0.3,train,x",
        "ends at 1e308": "a/a0.wav,a,0,1e308,train,x",
        "ends before it starts": "a/a0.wav,a,0.3,0.1,train,x",
        "starts at -1e9": "a/a0.wav,a,-1e9,1,train,x",
        "has a NUL": "a/a0.wav,a\0,0,0.3,train,x",
        "has a cell of 200,000 letters": f"a/a0.wav,{'x' * 200_000},0,0.3,train,x",
        "has an open quote": '"a/a0.wav,a,0,0.3,train,x',
        "has too many cells": f"{first}{',' * 5000}",
        "has an unknown split": "a/a0.wav,a,0,0.3,evil,x",
    }.items():
        yield Attack(
            entries.TABLE, f"a row {name}", lambda content, _, r=row: content.replace(first.encode(), r.encode()), must_fail=False
        )
    for name, label in {
        "control characters": CONTROL,
        "formulas": FORMULA.replace(",", ""),
        "another formula": "+1+1",
        "@": "@SUM(A1)",
    }.items():
        yield Attack(
            entries.TABLE,
            f"labels are {name}",
            lambda content, _, v=label: content.replace(b".wav,a,", f".wav,{v},".encode()),
            must_fail=False,
        )
    for name, make in {
        "empty": _text(""),
        "header alone": _text("path,labels\n"),
        "1000 columns": _text(",".join(f"c{n}" for n in range(1000)) + "\n"),
        "header twice": _text("path,path,labels\na/a0.wav,a/a0.wav,a\n"),
        "zeros": lambda *_: bytes(10_000),
        "UTF-16 cut": lambda *_: b"\xff\xfea",
        "workbook": lambda *_: b"PK\3\4" + bytes(100),
        "sep line": _text("sep=\x1b\n"),
        "line of 5 MB": _text("path,labels\n" + "x" * 5_000_000),
    }.items():
        yield Attack(entries.TABLE, name, make)
    for name, make in {
        "reversed times": _text("0.2\t0.1\ta\n"),
        "times of nan": _text("nan\t0.1\ta\n"),
        "times of 1e308": _text("0\t1e308\ta\n1\t2\tb\n"),
        "no text": lambda *_: bytes(1000),
        "control characters": lambda content, _: content.replace(b"\ta\t", f"\t{CONTROL}\t".encode()),
        "files elsewhere": lambda content, _: content.replace(b"a0.wav", b"../../../elsewhere/secret"),
        "no annotation": _text("Begin Time (s)\tEnd Time (s)\n0\t1\n"),
        "formulas": lambda content, _: content.replace(b"\ta\t", f"\t{FORMULA}\t".encode()),
    }.items():
        yield Attack(entries.LABELS, name, make, must_fail=False)
    for name, make in {
        "control characters": _text(f'{CONTROL}, 0, 10, "/m/09x0r"\n'),
        "unknown class": _text('a, 0, 10, "/m/evil"\n'),
        "times of nan": _text('a, nan, inf, "/m/09x0r"\n'),
        "../": _text('../../../../owned, 0, 10, "/m/09x0r"\n'),
        "no UTF-8": lambda *_: b"\xff\xfe\xfd, 0, 10, x\n",
        "empty": _text(""),
        "zeros": lambda *_: bytes(5000),
        "cell of 200,000 letters": _text(f'a, 0, 10, "{"x" * 200_000}"\n'),
    }.items():
        yield Attack(entries.SEGMENT_LIST, name, make)


def json_attacks() -> Iterator[Attack]:
    for key in ("task_name", "embedding_type", "prediction_type", "split_mode", "splits", "evaluation", "sample_duration"):
        for number, value in enumerate(json_values()):
            yield Attack(
                entries.METADATA,
                f"{key}, value {number}",
                lambda content, _, k=key, v=value: _dump(json.loads(content) | {k: v}),
                must_fail=False,
            )
    names = ("../../../elsewhere/secret", "/etc/passwd", "..", CONTROL, "x" * 5000, "\x00", "\ud800")
    for number, name in enumerate(names):
        yield Attack(entries.SPLIT, f"file name {number}", lambda content, _, n=name: _dump(json.loads(content) | {n: ["a"]}))
    for number, value in enumerate(json_values()):
        yield Attack(
            entries.SPLIT,
            f"labels, value {number}",
            lambda content, _, v=value: _dump(json.loads(content) | {"fold010.wav": v}),
            must_fail=value != ["a"],
        )
    for kind in (entries.METADATA, entries.SPLIT):
        for text in ("", "[", "[" * 100_000, "null", "[]", "3", "NaN", '{"a": ' * 50_000, "\x1b[2J", "9" * 10_000):
            yield Attack(kind, f"text {text[:10]!r}", _text(text))


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def teacher_attacks() -> Iterator[Attack]:
    def npy(header: str, data: bytes = b"") -> bytes:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data

    for name, header in {
        "2^40 rows": "{'descr': '<f2', 'fortran_order': False, 'shape': (1099511627776, 527), }",
        "negative": "{'descr': '<f2', 'fortran_order': False, 'shape': (-1, 527), }",
        "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (6, 527), }",
        "executes": "__import__('os').system('touch ../owned')",
        "nested": "(" * 500,
        "text": "{'descr': '<U9', 'fortran_order': False, 'shape': (6, 527), }",
        "no dict": "3",
        "turned": "{'descr': '<f2', 'fortran_order': True, 'shape': (6, 527), }",
        "floats": "{'descr': '<f2', 'fortran_order': False, 'shape': (6.0, 527), }",
        "unknown": "{'descr': '<f2', 'x': 1}",
        "control": CONTROL,
    }.items():
        yield Attack(entries.LOGITS, f"header: {name}", lambda _, __, h=header: npy(h, bytes(6 * 527 * 2)))
    for name, content in {"empty": b"", "cut": b"\x93NUMPY\x01", "text": CONTROL.encode()}.items():
        yield Attack(entries.LOGITS, name, lambda _, __, c=content: c)
    for value in NUMBERS[-3:]:
        yield Attack(
            entries.LOGITS, f"logits are {value}", lambda _, __, v=value: _npy(np.full((6, 527), v, np.float16)), must_fail=False
        )
    for name, text in {
        "too many": "x\n" * 50,
        "none": "",
        "control": CONTROL + "\n",
        "equal": "x\n" * 6,
        "zeros": "\0" * 1000,
    }.items():
        yield Attack(entries.NAMES, name, _text(text), must_fail=name != "equal")
    for name, make in {
        "executes": lambda _, secret: pickle.dumps(Executed(secret)),
        "executes, 0": lambda _, secret: pickle.dumps(Executed(secret), 0),
        "list": lambda *_: pickle.dumps(["a"] * 6),
        "negative rows": lambda *_: pickle.dumps({f"Y{name}.mp3": -1 for name in undamaged.IDS}),
        "rows beyond": lambda *_: pickle.dumps({f"Y{name}.mp3": 10**30 for name in undamaged.IDS}),
        "rows are text": lambda *_: pickle.dumps({f"Y{name}.mp3": "x" for name in undamaged.IDS}),
        "nested": lambda *_: pickle.dumps(nested(300)),
        "marks": lambda *_: b"\x80\x02" + b"(" * 1_000_000,
        "long text": lambda *_: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        "empty": lambda *_: b"",
        "cut": lambda content, _: content[:20],
    }.items():
        yield Attack(entries.INDEX, name, make)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def shard_attacks() -> Iterator[Attack]:
    def member(name: str, **fields: Any) -> Make:
        def make(content: bytes, _: Path) -> bytes:
            buffer = io.BytesIO(content)
            with tarfile.open(fileobj=buffer, mode="a") as archive:
                info = tarfile.TarInfo(name)
                for key, value in fields.items():
                    setattr(info, key, value)
                archive.addfile(info, io.BytesIO(bytes(info.size)) if info.size < 1 << 20 else None)
            return buffer.getvalue()

        return make

    for name, make in {
        "../": member("../../../owned.flac", size=5),
        "absolute": member("/etc/owned.flac", size=5),
        "link": member("x.flac", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "hard link": member("x.flac", type=tarfile.LNKTYPE, linkname="../../../elsewhere/secret"),
        "device": member("x.flac", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        "control characters": member(f"{CONTROL}.flac", size=5),
        "2^40 bytes": member("x.flac", size=1 << 40),
        "JSON": member("x.json", size=5),
    }.items():
        yield Attack(entries.TAR, f"member: {name}", make, must_fail=False)
    for kind in (entries.TAR, entries.PARQUET):
        for name, content in {"empty": b"", "text": CONTROL.encode() * 50, "zeros": bytes(1 << 16)}.items():
            yield Attack(kind, name, lambda _, __, c=content: c, must_fail=False)
        yield Attack(kind, "half", lambda content, _: content[: len(content) // 2], must_fail=False)
