"""Attacks by zips, tars and parquet files."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz import entries, undamaged
from tests.fuzz.cases import Attack
from tests.fuzz.sandbox import OWNED
from tests.fuzz.values import CONTROL

Make = Callable[[bytes, Path], bytes]


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
    yield attack("recording of 1 GB in 1 MB", lambda _, __: _zip_bomb("0.wav"), must_fail=False)  # the report lists it
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
