"""Attacks by recordings and HDF5 files of them."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.datasets.test_hostile_recordings import BOMBS, playlists
from tests.fuzz import entries, undamaged
from tests.fuzz.cases import Attack
from tests.fuzz.values import CONTROL

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
    yield attack(
        "names are long texts", _replace("audio_name", data=["x" * 100_000] * count, dtype=h5py.string_dtype()), must_fail=False
    )
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
    for mark in (b"TREE", b"SNOD", b"HEAP"):
        yield attack(f"zeros behind {mark.decode()}", lambda content, _, m=mark: _zero_behind(content, m, 16), must_fail=False)
    for share in (0.1, 0.5, 0.99):
        yield attack(f"cut at {share}", lambda content, _, s=share: content[: int(s * len(content))], must_fail=False)
    for name, content in {"empty": b"", "text": CONTROL.encode() * 50, "only the mark": b"\x89HDF\r\n\x1a\n" + bytes(5000)}.items():
        yield attack(name, lambda _, __, c=content: c)


def _zero_behind(content: bytes, mark: bytes, count: int) -> bytes:
    result, place = bytearray(content), -1
    while (place := content.find(mark, place + 1)) >= 0:
        result[place + len(mark) + 4 : place + len(mark) + 4 + count] = bytes(count)
    return bytes(result)
