"""Attacks by tables, labels, JSON and a teacher's files."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import entries, undamaged
from tests.fuzz.attacks_models import Executed
from tests.fuzz.cases import Attack
from tests.fuzz.values import CONTROL, FORMULA, NUMBERS, json_values, nested

Make = Callable[[bytes, Path], bytes]


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
        "empty": _text(""),
        "reversed times": _text("filename,onset,offset,event_label\na,2,1,a\n"),
        "times of nan": _text("filename,onset,offset,event_label\na,nan,1,a\n"),
        "columns twice": _text("filename,onset,onset,event_label\na,1,2\n"),
        "no text": lambda *_: bytes(1000),
    }.items():
        yield Attack(entries.EVENTS, name, make)
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
